#!/bin/sh
# Install the system programs that the tests use, as far as they are missing.
# SYSTEM_SETUP=no installs nothing; tests that need a missing program are skipped and say so.
set -eu
cd "$(dirname "$0")/.."

# sshd and ip live where only root looks.
PATH=$PATH:/usr/sbin:/sbin

# program           Debian package
needed='
sshd                openssh-server
ssh                 openssh-client
rsync               rsync
parallel            parallel
ip                  iproute2
strace              strace
unshare             util-linux
setpriv             util-linux
'

# One of these is a browser. Debian calls its package chromium; elsewhere it may have another name, or come from
# somewhere else, so its lack stops nobody.
browser=
for program in chromium chromium-browser google-chrome chrome; do
    command -v "$program" >/dev/null && browser=$program
done

missing=$(echo "$needed" | while read -r program package; do
    [ -z "$program" ] || command -v "$program" >/dev/null || echo "$package"
done | sort -u | tr '\n' ' ')

if [ -z "$missing$(test -n "$browser" || echo chromium)" ]; then
    exit 0
fi
if [ "${SYSTEM_SETUP:-yes}" = no ]; then
    test -n "$browser" || missing="${missing}chromium "
    echo "Not installed, as asked (SYSTEM_SETUP=no): $missing- tests that need them will be skipped." >&2
    exit 0
fi

if [ -z "$browser" ]; then
    echo "The tests of the report need a browser; installing chromium (SYSTEM_SETUP=no leaves it out)" >&2
    sh scripts/apt-install.sh chromium || echo "Going on without; tests that need it will be skipped." >&2
fi
[ -n "$missing" ] || exit 0

echo "The tests need some system packages; installing: $missing(SYSTEM_SETUP=no leaves them out)" >&2
status=0
# shellcheck disable=SC2086  # a list of words
sh scripts/apt-install.sh $missing || status=$?
if [ "$status" -eq 3 ]; then
    echo "Going on without; tests that need them will be skipped." >&2
    exit 0
fi

# The tests start their own sshd on a port of their own. Nobody asked for one that serves the network.
case " $missing" in
    *" openssh-server "*)
        if [ -d /run/systemd/system ] && [ "$status" -eq 0 ]; then
            sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
            $sudo systemctl disable --quiet --now ssh.service ssh.socket 2>/dev/null || true
        fi
        ;;
esac
exit "$status"
