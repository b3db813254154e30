#!/bin/sh
# Build our own packages and install them into /own; write the image's bill of materials. For the Dockerfile:
#   install_own.sh IMAGE "MODULE, MODULE" PACKAGE...
set -eu
image=$1 modules=$2
shift 2
pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir /wheels "$@"
pip install --quiet --no-deps --no-index --no-compile --target /own /wheels/*.whl
/opt/mien/bin/python sbom.py "$image" "$VERSION" "$image.lock" "$SITE_PACKAGES" /own > sbom.cdx.json
# Python compiles the modules that the service imports at its start, and no others. The bytecode goes into our layer.
PYTHONPATH=/own PYTHONDONTWRITEBYTECODE='' /opt/mien/bin/python -c "import $modules"
cd "$SITE_PACKAGES"
find . -name __pycache__ -prune -exec cp -r --parents {} /own \;
