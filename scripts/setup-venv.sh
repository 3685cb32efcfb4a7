#!/bin/sh
# Make .venv in the repository and install tea into it, editable: setup-venv.sh [EXTRA]
# EXTRA is a group of optional dependencies in pyproject.toml, such as dev. Running it again is harmless.
set -eu
cd "$(dirname "$0")/.."

extra=${1:+[$1]}

works() {
    .venv/bin/python -m pip --version >/dev/null 2>&1
}

make_venv() {
    rm -rf .venv
    "$python" -m venv .venv >.venv.log 2>&1 && works
}

# Debian's python3 comes without ensurepip, and without it a venv has no pip.
install_ensurepip() {
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "$python can't make virtual environments yet; installing $package." >&2
    sh scripts/apt-install.sh "$package"
}

if ! works; then
    python=$(sh scripts/find-python.sh)
    make_venv || { install_ensurepip && make_venv; } || {
        echo "Can't make a virtual environment in $PWD/.venv:" >&2
        cat .venv.log >&2
        exit 1
    }
    rm -f .venv.log
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint scripts/constraints.txt --config-settings editable_mode=compat --editable ".$extra"
