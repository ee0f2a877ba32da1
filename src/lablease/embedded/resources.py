"""Files that ship with the package: CRDs and manifests, the same ones that a production cluster gets."""

from pathlib import Path

import lablease

_PACKAGE = Path(lablease.__file__).parent
CRDS = _PACKAGE / "crds"
MANIFESTS = _PACKAGE / "manifests"
GO_MODULE = _PACKAGE / "embedded" / "gomod"

MANIFEST_FOLDERS = (MANIFESTS / "base", MANIFESTS / "rbac")
