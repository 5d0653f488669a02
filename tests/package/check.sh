#!/bin/sh
# Judges a package that systemd/build-deb.sh has built from this checkout:
#   sh tests/package/check.sh [--keep] DEB [NEWER]
# lintian; contents; and, in a bare Debian 12 root without systemd running: installed with apt,
# its commands as nobody, upgraded (to NEWER, or to itself), removed, purged; afterwards the root
# is as it was. Root, or sudo. --keep leaves the root for a look. Packages that apt downloads for
# the bare root are kept in ${XDG_CACHE_HOME:-~/.cache}/cardsession/archives.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
# shellcheck source=daemon/setup.sh
. "$ROOT/daemon/setup.sh"

# Which Debian packages, and for what.
#   binutils                  strip: a library as the package should have it
#   debootstrap               the bare root
#   dpkg-dev lintian shellcheck   Debian's own judges, and one of shell scripts
#   util-linux                unshare, mount
PACKAGES_CHECK='binutils debootstrap dpkg-dev lintian shellcheck util-linux'

keep=
if [ "${1:-}" = --keep ]; then
    keep=1
    shift
fi
if [ ! -f "${1:-}" ] || [ ! -f "${2:-$1}" ]; then
    sed -n 's/^# \{0,1\}//p' "$0" | head -n 6 >&2
    exit 64
fi

if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=XDG_CACHE_HOME,HOME,CI,CARDSESSION_MIRROR sh "$0" ${keep:+--keep} "$@"
fi
if [ -z "${CARDSESSION_BARE:-}" ]; then
    export CARDSESSION_BARE=1
    exec unshare --mount --propagation private -- sh "$0" ${keep:+--keep} "$@"
fi
DEB=$(readlink -f "$1") NEWER=$(readlink -f "${2:-$1}")
install_packages "$PACKAGES_CHECK"
# shellcheck source=tests/debian.sh
. "$ROOT/tests/debian.sh"

# stage NAME CMD…: CMD, stopping at its first failure.
stage() {
    name=$1
    shift
    # Not "if CMD": a shell that tests a function's status ignores set -e inside it.
    set +e
    ( set -e; "$@" ) >"$LOG" 2>&1
    status=$?
    set -e
    if [ "$status" != 0 ]; then
        cat "$LOG"
        printf '== package: %s: FAILED with status %d\n' "$name" "$status"
        exit 1
    fi
    printf '== package: %s: ok\n' "$name"
}

# no CMD…: fails, and says so, if CMD finds something.
no() {
    found=$("$@" 2>/dev/null || true)
    [ -z "$found" ] || { printf 'there should be nothing: %s\n%s\n' "$*" "$found"; return 1; }
}

scripts() {
    cd "$ROOT"
    shellcheck --shell=sh --severity=warning --external-sources systemd/build-deb.sh \
        systemd/debian/cardsession.p* tests/package/check.sh
}

lint() {
    lintian --allow-root --display-info --fail-on error,warning,info "$DEB"
}

contents() {
    /usr/bin/python3 -I "$ROOT/tests/package/contents.py" "$DEB" "$ROOT" "$CACHE"
}

# prepare: BARE, bare but for what the package depends on and recommends; no service is started.
prepare() {
    unpack_root "$BARE"
    as_here "$BARE"
    printf '#!/bin/sh\nexit 101\n' >"$BARE/usr/sbin/policy-rc.d"
    chmod 0755 "$BARE/usr/sbin/policy-rc.d"
    mkdir -p "$CACHE/archives" "$BARE/src"
    mount --bind "$CACHE/archives" "$BARE/var/cache/apt/archives"
    cp "$DEB" "$NEWER" "$BARE/src/"
    inside apt-get -q update
    inside apt-get -q -y -o APT::Sandbox::User=root satisfy "$(dpkg-deb --field "$DEB" Depends)" \
        "$(dpkg-deb --field "$DEB" Recommends)"
}

# inside CMD…: CMD in the bare root, asked nothing.
inside() {
    clean_environment env DEBIAN_FRONTEND=noninteractive chroot "$BARE" "$@"
}

# nobody CMD…: the same as a user who is in no group.
nobody() {
    inside setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent "$@"
}

# tree: what is in the bare root, a line for each file, but for what apt, dpkg, ldconfig and the
# tools for users note of every installation.
tree() {
    inside find / -xdev \( -path /src -o -path /var/lib/dpkg -o -path /var/lib/apt \
        -o -path /var/cache -o -path /var/log -o -path /tmp \) -prune \
        -o ! -path '/etc/passwd-' ! -path '/etc/shadow-' ! -path '/etc/group-' \
        ! -path '/etc/gshadow-' ! -path '/etc/.pwd.lock' ! -type d -printf '%p %y %M %u:%g %s %l\n' \
        -o -type d -printf '%p %y %M %u:%g\n' | sort
    inside sh -c 'cd /etc && find . -type f ! -name "*-" ! -path ./.pwd.lock -exec sha256sum {} +' |
        sort -k 2
}

works() {
    version=$(dpkg-deb --field "$1" Version)
    [ "$(nobody cardsessiond --version)" = "cardsessiond ${version%-*}" ]
    nobody cardsessiond --settings | grep -q '^\[trust\]\|trust\.anchors'
    nobody cardsessionctl --help | grep -q '^usage: cardsessionctl'
    nobody cardsession-virtual --help | grep -q '^usage: cardsession-virtual'
    # Everything that is imported late, with what Debian has to give for it.
    nobody /usr/lib/cardsession/bin/python -I -W error -c "if True:
        import ctypes
        import cardsession.__main__, cardsession.ctl.__main__, cardsession.virtual.__main__
        import cryptography.x509.verification, rich.live, smartcard.scard
        ctypes.CDLL('libpcsclite.so.1'), ctypes.CDLL('libudev.so.1')"
    # From elsewhere, with somebody's Python path, nothing of theirs is imported.
    nobody sh -c 'mkdir -p /tmp/evil && cd /tmp/evil && echo "raise SystemExit(99)" >structlog.py &&
        PYTHONPATH=/tmp/evil PYTHONSTARTUP=/tmp/evil/structlog.py cardsessiond --version'
    [ "$(inside id -nG cardsession)" = "cardsession cardsession-pcsc" ]
    for group in cardsession cardsession-admin cardsession-pcsc; do
        inside getent group "$group"
    done
    for directory in '' /anchors.d /revocation.d /cards.d; do
        [ "$(inside stat -c '%A %U' /etc/cardsession$directory)" = "drwxr-xr-x root" ]
    done
    [ -L "$BARE/etc/systemd/system/multi-user.target.wants/cardsessiond.service" ]
    # shellcheck disable=SC2016
    # Byte code that is in time, for what the commands import: none of it is compiled at a start.
    inside sh -c 'for command in cardsessiond cardsessionctl cardsession-virtual; do
        PYTHONDONTWRITEBYTECODE=1 /usr/lib/cardsession/bin/python -v /usr/bin/$command --help 2>&1 |
            sed -n "s|^# code object from \(/usr/lib/cardsession/.*\.py\)$|\1|p"
    done' >"$LOG.compiled"
    no cat "$LOG.compiled"
}

install() {
    inside apt-get -q -y install "/src/${DEB##*/}"
    works "$DEB"
}

upgrade() {
    # What a site has written is its own.
    echo '# the site'"'"'s' >"$BARE/etc/cardsession/cardsessiond.toml"
    echo anchor >"$BARE/etc/cardsession/anchors.d/site.pem"
    inside chmod 0750 /etc/cardsession/cards.d
    inside install -d -o cardsession -g cardsession-admin -m 0750 /var/lib/cardsession
    echo '{}' >"$BARE/var/lib/cardsession/audit-2026-11-23.jsonl"
    inside apt-get -q -y --reinstall install "/src/${NEWER##*/}"
    [ "$(inside stat -c %a /etc/cardsession/cards.d)" = 750 ]
    inside chmod 0755 /etc/cardsession/cards.d
    works "$NEWER"
    kept
}

# kept: what a site has written.
kept() {
    for path in etc/cardsession/cardsessiond.toml etc/cardsession/anchors.d/site.pem \
        var/lib/cardsession/audit-2026-11-23.jsonl; do
        [ -s "$BARE/$path" ] || { printf 'gone: %s\n' "$path"; return 1; }
    done
}

removed() {
    # As a site narrows pcscd.
    inside install -D -m 0644 /usr/share/cardsession/pcscd.socket.d/cardsession.conf \
        /etc/systemd/system/pcscd.socket.d/cardsession.conf
    inside apt-get -q -y remove cardsession
    kept
    inside getent group cardsession-pcsc
    [ -e "$BARE/etc/systemd/system/pcscd.socket.d/cardsession.conf" ]
    no find "$BARE/usr" "$BARE/lib/systemd" -name '*cardsession*'
}

again() {
    inside apt-get -q -y install "/src/${NEWER##*/}"
    works "$NEWER"
    kept
}

purged() {
    inside apt-get -q -y purge cardsession
    tree >"$LOG.after"
    diff "$LOG.before" "$LOG.after"
}

BARE=$(mktemp -d "$CACHE/bare.XXXXXX")
LOG=$(mktemp -d)/log
clean() {
    rm -rf "${LOG%/*}"
    [ -n "$keep" ] && { printf '== package: kept in %s\n' "$BARE"; return; }
    remove_root "$BARE"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

stage "scripts" scripts
stage "lintian" lint
stage "contents" contents
stage "a bare $SUITE (once)" pristine_root
stage "what it depends on" prepare
tree >"$LOG.before"
stage "installed" install
stage "upgraded, the site's files kept" upgrade
stage "removed, the site's files kept" removed
stage "installed again" again
stage "purged, nothing left" purged
