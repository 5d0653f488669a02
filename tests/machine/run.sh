#!/bin/sh
# The whole machine: builds the package and a Debian 12 to install it in, boots that under QEMU
# and plays the scenarios, a line each. Arguments go to pytest: sh tests/machine/run.sh -k suspend
# Root, or sudo where root is needed. Package and image are kept in
# ${XDG_CACHE_HOME:-$HOME/.cache}/cardsession: a second run needs no network.
# Of a scenario that fails, console, journal and the cards' logs are kept, in
# ${CARDSESSION_MACHINE_EVIDENCE:-/var/tmp}. CARDSESSION_MIRROR names another Debian mirror.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
. "$ROOT/daemon/setup.sh"
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cardsession

# Which Debian packages, and for what.
#   qemu-system-x86 qemu-utils             the machine and its disk
#   debootstrap e2fsprogs cpio dpkg-dev    the disk's contents, the disk, the initrd, packages
PACKAGES_MACHINE='cpio debootstrap dpkg-dev e2fsprogs qemu-system-x86 qemu-utils'

# timed NAME CMD…: CMD; a line says how long it took.
timed() {
    name=$1 from=$(date +%s)
    shift
    "$@"
    printf '== machine: %s: %d s\n' "$name" $(($(date +%s) - from)) >&2
}

# package_digest: one hash over what the package is made of.
package_digest() {
    ( cd "$ROOT" && find CHANGELOG.md LICENSE README.md daemon pyproject.toml setup.cfg systemd \
        udev-rules -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -print0 | sort -z |
        xargs -0 sha256sum | sha256sum | cut -c 1-16 )
}

# package: builds it, unless it is there; what nobody has used for a week goes. Sets PACKAGE.
package() {
    built=$CACHE/machine-package/$(package_digest)
    if ! ls "$built"/*.deb >/dev/null 2>&1; then
        rm -rf "$built.new"
        mkdir -p "$built.new"
        sh "$ROOT/systemd/build-deb.sh" --output "$built.new" >&2
        rm -rf "$built"
        mv "$built.new" "$built"
        find "$CACHE/machine-package" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
    fi
    touch "$built"
    PACKAGE=$(ls "$built"/*.deb)
}

# image: sets IMAGE.
image() { IMAGE=$(sh "$ROOT/tests/machine/image.sh" "$PACKAGE" | tail -n 1); }

began=$(date +%s)
setup_all DEV real
install_packages "$PACKAGES_MACHINE"
timed "package" package
timed "image" image
[ -f "$IMAGE/done" ] || die "there is no image"
cd "$ROOT"
set +e
env CARDSESSION_MACHINE_IMAGE="$IMAGE" CARDSESSION_MACHINE_PACKAGE="$PACKAGE" \
    "$VENV/bin/python" -P -m pytest tests/machine --confcutdir=tests/machine --quiet --no-header \
    --override-ini=timeout=900 --override-ini=timeout_method=signal "$@"
status=$?
printf '== machine: %s, %d s altogether\n' \
    "$([ "$status" = 0 ] && echo ok || echo FAILED)" $(($(date +%s) - began))
exit "$status"
