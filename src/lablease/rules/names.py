"""Names: of objects, labels and tags, and the object name that belongs to an external user."""

import re
from collections.abc import Mapping

from lablease.errors import InvalidField
from lablease.model.meta import LABEL_PREFIX, TAG_PREFIX

MAXIMUM_TAGS = 10
"""The CRD refuses more; a lab may allow fewer."""
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_CHARACTERS = 63
_SUBDOMAIN_CHARACTERS = 253
_SERVICE_ACCOUNT = re.compile(r"[^:]*:system:serviceaccount:(?P<name>[^:]+:[^:]+)")
_INTERNAL = "internal:"


def check_object_name(name: str, field: str) -> str:
    """Return the name if it may name an object (a DNS-1123 subdomain), else raise InvalidField."""
    if not _is_subdomain(name):
        raise InvalidField(
            field, f"{_short(name)} must be lower-case letters, digits, '-' and '.', at most 253 characters"
        )
    return name


def check_label_key(key: str, field: str) -> str:
    """Return the key if it is ``[prefix/]name`` as Kubernetes has it, else raise InvalidField."""
    prefix, slash, name = key.rpartition("/")
    if (slash and not _is_subdomain(prefix)) or not _is_label_name(name):
        raise InvalidField(
            field, f"{_short(key)} is not a label key: [prefix/]name, the name at most 63 letters, digits, -_."
        )
    return key


def check_label_value(value: str, field: str) -> str:
    """Return the value if it is empty or a label value, else raise InvalidField."""
    if value and not _is_label_name(value):
        raise InvalidField(field, f"{_short(value)} is not a label value: at most 63 letters, digits, -_.")
    return value


def check_tags(tags: Mapping[str, str], field: str, *, maximum: int = MAXIMUM_TAGS) -> None:
    """Raise InvalidField unless all tags can be labels below ``metadata.jumpstarter.dev/``."""
    if len(tags) > maximum:
        raise InvalidField(field, f"at most {maximum} tags, not {len(tags)}")
    for key, value in tags.items():
        if key.startswith((LABEL_PREFIX, TAG_PREFIX)):
            raise InvalidField(field, f"{_short(key)} begins with a reserved prefix")
        if not _is_label_name(key):
            raise InvalidField(field, f"{_short(key)} is not a tag name: at most 63 letters, digits, -_. and no '/'")
        check_label_value(value, field)


def is_internal(user: str) -> bool:
    """True if the user name alone does not say which object is meant: identities of ours, service accounts."""
    return user.startswith(_INTERNAL) or _SERVICE_ACCOUNT.fullmatch(user) is not None


def object_name(user: str) -> str:
    """Return the object name of an external user: the text after the issuer's prefix, as a DNS label.

    ``dex:Alice.Doe@lab`` becomes ``alice-doe-lab``; a name without any letter or digit becomes empty.
    """
    account = _SERVICE_ACCOUNT.fullmatch(user)
    text = account["name"] if account else user.partition(":")[2] if ":" in user else user
    joined = re.sub(r"-+", "-", re.sub(r"[^-a-zA-Z0-9]", "-", text).lower()).strip("-")
    return joined[:_LABEL_CHARACTERS].rstrip("-")


def _is_subdomain(name: str) -> bool:
    return len(name) <= _SUBDOMAIN_CHARACTERS and all(_DNS_LABEL.fullmatch(part) for part in name.split("."))


def _is_label_name(name: str) -> bool:
    return len(name) <= _LABEL_CHARACTERS and _LABEL_NAME.fullmatch(name) is not None


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
