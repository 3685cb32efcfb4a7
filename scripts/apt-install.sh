#!/bin/sh
# Install Debian packages: apt-install.sh PACKAGE...
# Ends with 3, and says so, where that can't be done at all (no apt-get, or no right to use it).
set -eu

cannot() {
    echo "Can't install $packages: $1. Please have them installed and try again." >&2
    exit 3
}

packages=$*
command -v apt-get >/dev/null || cannot "there is no apt-get here"

sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || cannot "not root, and there is no sudo"
    sudo=sudo
    # Without a terminal sudo can't ask for a password, and would wait or fail without a word.
    [ -t 0 ] || sudo -n true 2>/dev/null || cannot "not root, and sudo wants a password"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A third party's broken package list is no reason to give up: the packages wanted here are Debian's own.
$sudo apt-get -qq update >"$log" 2>&1 || echo "apt-get update had errors; trying to install all the same." >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >>"$log" 2>&1 || {
    cat "$log" >&2
    echo "apt-get could not install: $packages" >&2
    exit 1
}
