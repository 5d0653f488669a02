#!/bin/sh
# Builds the Debian package from this checkout, from nothing, on Debian 12.
#   sh systemd/build-deb.sh [--output DIR] [--revision N]
# Root, or sudo, for Debian's packages only. The last line on stdout is the path of the package:
# cardsession_<version>-<N>_<architecture>.deb in DIR (dist/ of the checkout), N as in
# systemd/debian/changelog if not given. What was downloaded and compiled is kept in
# ${XDG_CACHE_HOME:-~/.cache}/cardsession: a second run needs no network. The checkout is left as
# it is, and the same files give the same package, byte for byte.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
# shellcheck source=daemon/setup.sh
. "$ROOT/daemon/setup.sh"
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cardsession
# The package's interpreter is Debian's, which it depends on; not whatever is first on the PATH.
PYTHON=/usr/bin/python3
umask 022

# Which Debian packages, and for what.
#   debhelper dpkg-dev        dh, which does what every package needs; dpkg-buildpackage
#   gcc libc6-dev libpcsclite-dev python3-dev swig   pyscard has no Linux wheel: it is built
#   python3 python3-venv      the interpreter that the package depends on
#   ca-certificates           pip downloads
#   util-linux                flock
PACKAGES_BUILD='ca-certificates debhelper dpkg-dev gcc libc6-dev libpcsclite-dev python3
    python3-dev python3-venv swig util-linux'

usage() {
    sed -n 's/^# \{0,1\}//p' "$0" | head -n 8 >&2
    exit 64
}

output=$ROOT/dist revision=
while [ $# -gt 0 ]; do
    case $1 in
        --output) [ -n "${2:-}" ] || usage; output=$2 ;;
        --revision) revision=${2:-}; case $revision in '' | *[!0-9]*) usage ;; esac ;;
        *) usage ;;
    esac
    shift 2
done

# key: one hash over what decides which wheels there are and how they are made; not over where
# this checkout lies, for which "digest" would ask.
key() {
    { "$PYTHON" -VV; dpkg --print-architecture; cat "$ROOT"/daemon/requirements-build.txt \
        "$ROOT"/daemon/requirements.txt "$ROOT"/systemd/build-deb.sh; } | sha256sum | cut -c 1-12
}

# ensure_wheels: VENV, a virtual environment in the cache with the locked build tools; under
# VENV/wheels the locked packages as wheels, under VENV/SHA256SUMS what they were when they came.
ensure_wheels() {
    wanted=$(key)
    VENV=$CACHE/package-$wanted
    if stamped WHEELS "$wanted"; then
        ( cd "$VENV/wheels" && sha256sum --check --quiet ../SHA256SUMS >&2 ) && return 0
        say "the wheels in $VENV are not what they were; once more"
    fi
    say "Python packages as wheels into $VENV (once; pyscard is compiled)"
    new_environment
    # No debugging information and no paths: they would name this machine's directories. Wheels
    # of other people's machines are held by their hashes, this one by the hash of its source;
    # not from pip's cache, which may have one that was compiled otherwise.
    DEB_BUILD_MAINT_OPTIONS='hardening=+all reproducible=-fixfilepath,-fixdebugpath' \
        DEB_CFLAGS_MAINT_STRIP=-g DEB_CFLAGS_MAINT_APPEND=-g0 dpkg-buildflags --export=sh \
        >"$VENV/flags"
    ( . "$VENV/flags" && pip wheel --require-hashes --no-build-isolation --no-deps \
        --no-cache-dir --wheel-dir "$VENV/wheels" -r "$ROOT/daemon/requirements.txt" ) ||
        die "pip could not make the wheels (its own words are above)"
    ( cd "$VENV/wheels" && sha256sum -- *.whl ) >"$VENV/SHA256SUMS"
    stamp WHEELS "$wanted"
}

# stage_source: $work/source, as a Debian source tree: the checkout's files, debian/ in its place.
stage_source() {
    mkdir -p "$work/source"
    tar -C "$ROOT" --exclude=__pycache__ --exclude='*.egg-info' -cf - CHANGELOG.md LICENSE \
        README.md daemon pyproject.toml setup.cfg systemd udev-rules | tar -C "$work/source" -xf -
    mv "$work/source/systemd/debian" "$work/source/debian"
    version=$("$PYTHON" -I -c 'import ast, sys; print(next(ast.literal_eval(node.value)
        for node in ast.parse(open(sys.argv[1]).read()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"))' \
        "$ROOT/daemon/cardsession/__init__.py")
    changelog=$work/source/debian/changelog
    case $(dpkg-parsechangelog -l "$changelog" -S Version) in
        "$version"-*) ;;
        *) die "systemd/debian/changelog does not begin with version $version" ;;
    esac
    [ -z "$revision" ] || new_entry
    SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l "$changelog" -S Timestamp)
    export SOURCE_DATE_EPOCH
}

# new_entry: the changelog says that this is revision $revision; its date stays, as nothing in
# the package may depend on when it was built.
new_entry() {
    {
        printf 'cardsession (%s-%s) bookworm; urgency=medium\n\n' "$version" "$revision"
        printf '  * Rebuilt as revision %s.\n\n' "$revision"
        sed -n '/^ -- /{p;q}' "$changelog"
        printf '\n'
        cat "$changelog"
    } >"$changelog.new"
    mv "$changelog.new" "$changelog"
}

# stage_packages: $work/source/site-packages, installed from the wheels alone and without what
# pip notes for itself: where it took them from, and hashes of files that are stripped later.
stage_packages() {
    site=$work/source/site-packages
    pip wheel --no-index --no-deps --no-build-isolation --wheel-dir "$work" "$work/source" ||
        die "pip could not build the project (its own words are above)"
    pip install --no-index --no-deps --no-compile --target "$site" \
        "$VENV"/wheels/*.whl "$work"/cardsession-*.whl ||
        die "pip could not install the wheels (its own words are above)"
    # Commands of other projects; ours are made by debian/rules.
    rm -rf "${site:?}/bin"
    for note in RECORD INSTALLER REQUESTED direct_url.json; do
        rm -f "$site"/*.dist-info/"$note"
    done
}

# build: dpkg's own way, without root; what it says is shown if it fails. It would check for
# build-essential, a C++ compiler with it, which nothing here needs; what is needed is installed.
build() {
    ( cd "$work/source" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps ) \
        >"$work/log" 2>&1 && return
    cat "$work/log" >&2
    die "dpkg-buildpackage failed (its own words are above)"
}

install_packages "$PACKAGES_BUILD"
unset PYTHONPATH PYTHONHOME
mkdir -p "$CACHE" "$output"
output=$(CDPATH='' cd -- "$output" && pwd -P)
exec 9>"$CACHE/package.lock"
flock -w 1200 9 || die "another build still holds $CACHE/package.lock"
work=$(mktemp -d "${TMPDIR:-/tmp}/cardsession-deb.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

ensure_wheels
stage_source
stage_packages
say "building the package"
build
mv "$work"/*.deb "$output/"
printf '%s\n' "$output/$(sed -n 's/ .*//; /\.deb$/p' "$work/source/debian/files")"
