"""Keys and certificates of one control plane: made at the first start, renewed at a later one when they run out."""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lablease.embedded.paths import DataDir, write_private

CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=397)  # what TLS libraries of operating systems still accept for a server
RENEW_BEFORE = timedelta(days=60)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_API_SERVER_NAMES = (*_LOOPBACK, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, name: str) -> "Pair":
        return cls(folder / f"{name}.crt", folder / f"{name}.key")


@dataclass(frozen=True, slots=True)
class Pki:
    """Everything that the API server, its admin and our services prove themselves with."""

    ca: Pair
    api_server: Pair
    admin: Pair
    service_account_key: Path
    service_ca: Pair
    service: Pair


def ensure(data: DataDir, now: datetime) -> Pki:
    """Make what is missing or runs out within 60 days, and leave the rest as it is."""
    pki = Pki(
        ca=Pair.at(data.pki, "ca"),
        api_server=Pair.at(data.pki, "apiserver"),
        admin=Pair.at(data.pki, "admin"),
        service_account_key=data.pki / "service-account.key",
        service_ca=Pair(data.dev_ca, data.dev_ca.with_suffix(".key")),
        service=Pair(data.dev_cert, data.dev_key),
    )
    _ensure_pair(pki.ca, now, lambda: _authority("lablease embedded control plane", now))
    _ensure_pair(pki.service_ca, now, lambda: _authority("lablease development services", now))
    _ensure_pair(pki.api_server, now, lambda: _server(pki.ca, "kube-apiserver", _API_SERVER_NAMES, now), pki.ca)
    _ensure_pair(pki.admin, now, lambda: _client(pki.ca, "lablease-admin", "system:masters", now), pki.ca)
    _ensure_pair(pki.service, now, lambda: _server(pki.service_ca, "lablease", _LOOPBACK, now), pki.service_ca)
    if not pki.service_account_key.exists():
        write_private(pki.service_account_key, _key_pem(ec.generate_private_key(ec.SECP256R1())))
    return pki


_Made = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _ensure_pair(pair: Pair, now: datetime, make: Callable[[], _Made], issuer: Pair | None = None) -> None:
    if pair.cert.exists() and pair.key.exists():
        cert = x509.load_pem_x509_certificate(pair.cert.read_bytes())
        if cert.not_valid_after_utc - now > RENEW_BEFORE and (issuer is None or _issued_by(cert, issuer)):
            return
    cert, key = make()
    write_private(pair.key, _key_pem(key))
    write_private(pair.cert, cert.public_bytes(serialization.Encoding.PEM))


def _issued_by(cert: x509.Certificate, issuer: Pair) -> bool:
    authority = x509.load_pem_x509_certificate(issuer.cert.read_bytes())
    wanted = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    named = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return named == wanted


def _authority(name: str, now: datetime) -> _Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    cert = (
        _builder(subject, subject, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return cert, key


def _server(ca: Pair, name: str, hosts: Sequence[str], now: datetime) -> _Made:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return _leaf(ca, subject, ExtendedKeyUsageOID.SERVER_AUTH, now, x509.SubjectAlternativeName(map(_general, hosts)))


def _client(ca: Pair, name: str, group: str, now: datetime) -> _Made:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    return _leaf(ca, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now, None)


def _leaf(
    ca: Pair,
    subject: x509.Name,
    usage: x509.ObjectIdentifier,
    now: datetime,
    names: x509.SubjectAlternativeName | None,
) -> _Made:
    authority = x509.load_pem_x509_certificate(ca.cert.read_bytes())
    signer = serialization.load_pem_private_key(ca.key.read_bytes(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{ca.key} is not an EC key")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(subject, authority.subject, key.public_key(), now, LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks of two containers on one machine may differ a little
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # "EC PRIVATE KEY": the API server reads the service-account key in this form only.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
