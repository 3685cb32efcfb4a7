#!/bin/sh
# Print the path of a Python that tea runs on (CPython >= 3.11). $PYTHON is tried first, and alone if it is set.
set -eu

new_enough() {
    # Run it instead of trusting its name: version managers leave shims for versions that are not installed.
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    if new_enough "$name"; then
        command -v "$name"
        exit 0
    fi
done

if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python >= 3.11 that runs here." >&2
else
    echo "tea needs Python >= 3.11, and no such python3 is on the PATH." >&2
    echo "Debian 12, Ubuntu 24.04: apt install python3. Elsewhere: https://www.python.org/downloads/" >&2
    echo "If it is installed somewhere else: make PYTHON=/path/to/python3.11 ..." >&2
fi
exit 1
