# Set-up shared by daemon/try.sh and tests/run.sh: sourced, never run. POSIX sh.
#
# The caller sets ROOT (the checkout, absolute) and calls setup_all RUNTIME|DEV.
# Afterwards ROOT/.venv holds Python with the locked packages, the project itself
# (editable) and, under .venv/vpcd, the virtual reader's driver, unpacked and not
# installed. What is there already is left alone: a second run asks nobody and
# needs no network. Nothing is changed outside .venv, .venv.lock and Debian's packages.
#
# Locks. daemon/requirements*.txt are made from setup.cfg by pip-tools, with Python 3.11:
#   pip-compile --generate-hashes --strip-extras --allow-unsafe --no-annotate \
#     --no-emit-index-url --no-emit-find-links -o daemon/requirements.txt setup.cfg
#   (… --extra test -c daemon/requirements.txt -o daemon/requirements-dev.txt setup.cfg)
#   echo setuptools | pip-compile … -o daemon/requirements-build.txt -

VENV=$ROOT/.venv
VPCD=$VENV/vpcd

# Which Debian packages, and for what.
#   pcscd libccid             the card service and the driver it will not be installed without
#   libpcsclite1 -dev swig gcc libc6-dev python3-dev   pyscard has no Linux wheel: it is built
#   python3 python3-venv      the interpreter
#   libudev1                  pyudev loads it
#   dbus-daemon               the private bus
#   systemd libglib2.0-bin    busctl and gdbus, subscribers that are not ours
#   iproute2 util-linux       ip, unshare, mount, setpriv, flock
#   ca-certificates           pip downloads
PACKAGES_RUNTIME='ca-certificates dbus-daemon gcc iproute2 libc6-dev libccid libglib2.0-bin
    libpcsclite-dev libpcsclite1 libudev1 pcscd python3 python3-dev python3-venv swig systemd
    util-linux'
#   opensc                    the outside judge of what the virtual card says
#   openssl                   the outside judge of certificates and signatures
#   e2fsprogs                 a disk that loses power, or hangs
#   umockdev libumockdev0     USB readers that are plugged in and pulled
#   python3-dbusmock          a logind that says when it goes to sleep
#   udev                      udevadm, the outside judge of udev rules
#   duktape                   runs the polkit rule: the language as Debian's polkitd knows it
#   libseccomp2               what systemd closes system calls with: tests/systemd/confined.py
PACKAGES_DEV='duktape e2fsprogs libseccomp2 libumockdev0 opensc openssl python3-dbusmock udev
    umockdev'

say() { printf '%s\n' "$*" >&2; }
die() { say "cardsession set-up: $*"; exit 1; }

# as_root CMD…: CMD as root; sudo only when needed, so that root needs no sudo installed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "needs root to run '$*', and there is no sudo: run it as root, then start again"
    fi
}

# apt_get ARGS…: apt-get as root, asking nothing, waiting its turn; what it says is shown only
# if it fails.
apt_get() {
    said=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" 2>&1 </dev/null) && return 0
    say "$said"
    return 1
}

# missing_packages NAMES: those of NAMES that dpkg does not have installed, one a line.
missing_packages() {
    for package in $1; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            printf '%s\n' "$package"
    done
}

# apt_update: the package lists, at most once in a run.
apt_update() {
    [ -z "${APT_UPDATED:-}" ] || return 0
    say "updating the package lists"
    apt_get update ||
        say "apt-get update failed; going on with the lists that are there"
    APT_UPDATED=1
}

# install_packages NAMES: what is missing of NAMES, in one transaction; on failure, which.
install_packages() {
    command -v dpkg-query >/dev/null 2>&1 ||
        die "this set-up is for Debian 12 and its kin (no dpkg-query here); needed: $1"
    missing=$(missing_packages "$1" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    say "installing from Debian: $missing"
    apt_update
    # shellcheck disable=SC2086
    apt_get install --no-install-recommends $missing && return 0
    still=$(missing_packages "$missing" | tr '\n' ' ')
    die "apt-get could not install: ${still:-$missing}(its own words are above)"
}

# usable_python PATH: whether PATH is Python 3.11 or newer and can make virtual environments.
usable_python() {
    "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# find_python: the interpreter to build on. The system's own first: a version manager's
# python3 on the PATH may be gone, or another one, tomorrow.
find_python() {
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        path=$(command -v "$candidate") || continue
        usable_python "$path" || continue
        printf '%s\n' "$path"
        return 0
    done
    die "no Python 3.11 or newer (with venv) found; Debian 12's package is python3"
}

# digest FILES…: one hash over the files, this checkout's place and the interpreter.
digest() {
    { printf '%s\n' "$ROOT"; "$PYTHON" -VV; cat "$@"; } | sha256sum | cut -d ' ' -f 1
}

# stamped NAME DIGEST / stamp NAME DIGEST: what was finished, and with which inputs. A stamp
# is written last, by rename, and removed first: an interrupted set-up starts over.
stamped() { [ "$(cat "$VENV/stamp.$1" 2>/dev/null)" = "$2" ]; }
stamp() {
    printf '%s\n' "$2" >"$VENV/stamp.$1.new"
    mv "$VENV/stamp.$1.new" "$VENV/stamp.$1"
}

# pip ARGS…: the environment's own pip; settings that would send files elsewhere are off.
pip() {
    env -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        PIP_NO_INPUT=1 "$VENV/bin/python" -I -m pip --quiet "$@" >&2
}

# ensure_environment LEVEL: .venv with the locked packages of LEVEL (RUNTIME or DEV).
ensure_environment() {
    here=$ROOT/daemon
    runtime=$(digest "$here/requirements-build.txt" "$here/requirements.txt")
    dev=$(digest "$here/requirements-build.txt" "$here/requirements-dev.txt")
    stamped DEV "$dev" && return 0
    if [ "$1" = RUNTIME ]; then
        stamped RUNTIME "$runtime" && return 0
        lock=$here/requirements.txt wanted=$runtime
    else
        lock=$here/requirements-dev.txt wanted=$dev
    fi
    say "Python packages into .venv (once; a few minutes, pyscard is compiled)"
    if stamped RUNTIME "$runtime"; then
        rm -f "$VENV"/stamp.RUNTIME "$VENV"/stamp.DEV
    else
        new_environment
    fi
    # No build isolation: an isolated build would fetch build tools that no hash holds.
    pip install --require-hashes --no-build-isolation -r "$lock" ||
        die "pip could not install $lock (its own words are above)"
    stamp "$1" "$wanted"
}

# new_environment: an empty .venv with the locked build tools; the unpacked driver stays.
new_environment() {
    if [ -d "$VENV" ]; then
        find "$VENV" -mindepth 1 -maxdepth 1 ! -name vpcd -exec rm -rf {} +
    fi
    "$PYTHON" -I -m venv "$VENV" || die "cannot make $VENV (Debian's package: python3-venv)"
    pip install --require-hashes -r "$ROOT/daemon/requirements-build.txt" ||
        die "pip could not install the build tools (its own words are above)"
}

# ensure_project: the project itself, editable, with its commands in .venv/bin; no network.
ensure_project() {
    wanted=$(digest "$ROOT/setup.cfg" "$ROOT/pyproject.toml" "$VENV/pyvenv.cfg")
    if stamped PROJECT "$wanted" && [ -x "$VENV/bin/cardsessiond" ]; then
        return 0
    fi
    rm -f "$VENV/stamp.PROJECT"
    pip install --no-index --no-deps --no-build-isolation --editable "$ROOT" ||
        die "pip could not install the project into .venv (its own words are above)"
    stamp PROJECT "$wanted"
}

# ensure_vpcd: Debian's vsmartcard-vpcd unpacked under .venv/vpcd. Not installed: on a
# workstation that would give its own pcscd two readers that listen on every address.
ensure_vpcd() {
    [ -f "$VPCD/reader.conf" ] && return 0
    say "unpacking the virtual reader's driver (vsmartcard-vpcd) into .venv/vpcd"
    new=$VENV/vpcd.new
    rm -rf "$new" "$VPCD"
    mkdir -p "$new"
    download_vpcd 2>/dev/null || {
        apt_update
        download_vpcd ||
            die "apt-get could not download vsmartcard-vpcd (its own words are above)"
    }
    dpkg-deb -x "$new"/vsmartcard-vpcd_*.deb "$new" || die "cannot unpack vsmartcard-vpcd"
    rm -f "$new"/vsmartcard-vpcd_*.deb
    # The description names the driver by its installed path; here it is elsewhere.
    driver=$(cd "$new" && find usr -name libifdvpcd.so)
    sed "s|^LIBPATH .*|LIBPATH      $VPCD/${driver:?not in vsmartcard-vpcd}|" \
        "$new/etc/reader.conf.d/vpcd" >"$new/reader.conf" ||
        die "vsmartcard-vpcd has no reader description"
    mv "$new" "$VPCD"
}

# download_vpcd: Debian's package into $new; needs no root.
download_vpcd() {
    ( cd "$new" && apt-get -q download vsmartcard-vpcd >&2 )
}

# setup_all RUNTIME|DEV [real]: everything; "real" leaves the virtual reader out.
setup_all() {
    unset PYTHONPATH PYTHONHOME
    exec 9>"$ROOT/.venv.lock" || die "cannot write to $ROOT"
    if ! flock -n 9; then
        say "waiting for another set-up of this checkout"
        flock -w 1200 9 || die "another set-up still holds $ROOT/.venv.lock"
    fi
    if [ "$1" = DEV ]; then
        install_packages "$PACKAGES_RUNTIME $PACKAGES_DEV"
    else
        install_packages "$PACKAGES_RUNTIME"
    fi
    PYTHON=$(find_python) || exit 1
    ensure_environment "$1"
    ensure_project
    [ "${2:-}" = real ] || ensure_vpcd
    exec 9>&-
}

# in_namespace CMD…: replaces this process by CMD in mount and network namespaces of its own,
# where pcscd sees the virtual reader and nothing else. As a plain user the namespaces hang
# on a user namespace (root inside, for the mounts), and CMD runs in a second one in which the
# user is itself again: else the private bus would refuse the same user from outside.
in_namespace() {
    set -- sh -c '. "$ROOT/daemon/setup.sh"; enter_namespace "$@"' sh "$(id -u)" "$(id -g)" "$@"
    export ROOT
    if [ "$(id -u)" = 0 ]; then
        exec unshare --mount --net --propagation private -- "$@"
    fi
    unshare --map-root-user --mount --net true ||
        die "user namespaces are closed to $(id -un) (kernel.unprivileged_userns_clone or" \
            "kernel.apparmor_restrict_unprivileged_userns): run this as root"
    exec unshare --map-root-user --mount --net --propagation private -- "$@"
}

# enter_namespace UID GID CMD…: in the new namespaces, what in_namespace promises.
enter_namespace() {
    outer_uid=$1 outer_gid=$2
    shift 2
    ip link set lo up || die "cannot bring up the loopback interface"
    private_directory /run/pcscd
    private_directory /etc/reader.conf.d
    cp "$VPCD/reader.conf" /etc/reader.conf.d/vpcd || die "no $VPCD/reader.conf"
    # A USB reader of this machine belongs to its own pcscd: ours gets no driver and no device.
    private_directory /usr/lib/pcsc/drivers
    [ ! -d /dev/bus/usb ] || private_directory /dev/bus/usb
    private_directory /run/udev  # without udevd: the daemon is not told of them either
    if [ "$outer_uid" = 0 ]; then
        exec "$@"
    fi
    exec unshare --user --map-user="$outer_uid" --map-group="$outer_gid" -- "$@"
}

# private_directory PATH: an empty directory there, for this namespace only.
private_directory() {
    [ -d "$1" ] || private_parent "$1"
    mount -n -t tmpfs -o mode=0755 cardsession "$1" || die "cannot mount over $1"
}

# private_parent PATH: makes PATH visible here although the machine has none (/run/pcscd
# where its pcscd never ran) and without leaving one behind: a tmpfs over its parent, with
# what was there mounted back entry by entry.
private_parent() {
    parent=$(dirname "$1")
    [ -d "$parent" ] || die "no directory $parent"
    mount -n -t tmpfs -o mode=0755 cardsession /mnt || die "cannot mount over /mnt"
    mkdir /mnt/old /mnt/new
    mount -n --rbind "$parent" /mnt/old || die "cannot bind $parent"
    mount -n -t tmpfs -o mode=0755 cardsession /mnt/new || die "cannot mount over /mnt"
    for entry in /mnt/old/* /mnt/old/.[!.]*; do
        name=${entry#/mnt/old/}
        if [ -L "$entry" ]; then
            ln -s "$(readlink "$entry")" "/mnt/new/$name"
        elif [ -d "$entry" ]; then
            mkdir "/mnt/new/$name" && mount -n --rbind "$entry" "/mnt/new/$name"
        elif [ -e "$entry" ]; then
            : >"/mnt/new/$name" && mount -n --bind "$entry" "/mnt/new/$name"
        fi
    done
    mkdir "/mnt/new/$(basename "$1")"
    mount -n --rbind /mnt/new "$parent" && umount -R -l /mnt || die "cannot mount over $parent"
}
