#!/bin/sh
# From nothing: a bare Debian 12 root, the committed checkout in it, and there
#   sh daemon/try.sh --scripted, and again without a network,
#   sh tests/run.sh, and again without a network (set-up, checks, a few tests).
# Root, or sudo. --worktree takes the files as they lie instead of the last commit;
# --keep leaves the root for a look; CARDSESSION_MIRROR names another Debian mirror.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cardsession
SUITE=bookworm

source=commit keep=
for argument in "$@"; do
    case $argument in
        --worktree) source=worktree ;;
        --keep) keep=1 ;;
        *) sed -n 's/^# \{0,1\}//p' "$0" | head -n 6; exit 64 ;;
    esac
done

if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=XDG_CACHE_HOME,HOME,CI,CARDSESSION_MIRROR sh "$0" "$@"
fi
# Everything below happens in a mount namespace of its own: nothing stays mounted.
if [ -z "${CARDSESSION_BARE:-}" ]; then
    export CARDSESSION_BARE=1
    exec unshare --mount --propagation private -- sh "$0" "$@"
fi

# stage NAME CMD…: CMD, stopping at its first failure; a line says how long it took.
began=$(date +%s)
stage() {
    name=$1 from=$(date +%s)
    shift
    printf '== bare: %s\n' "$name"
    # Not "if CMD": a shell that tests a function's status ignores set -e inside it.
    set +e
    ( set -e; "$@" )
    status=$?
    set -e
    took=$(($(date +%s) - from))
    if [ "$status" != 0 ]; then
        printf '== bare: %s: FAILED with status %d after %d s\n' "$name" "$status" "$took"
        exit 1
    fi
    printf '== bare: %s: ok, %d s\n' "$name" "$took"
}

# mirror: where this machine's apt gets Debian from.
mirror() {
    if [ -n "${CARDSESSION_MIRROR:-}" ]; then
        printf '%s\n' "$CARDSESSION_MIRROR"
        return
    fi
    # "site" is empty for file: and copy: sources; those bare machines could not reach anyway.
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null |
        grep -E '^https?://.*/debian/?$' | head -n 1) || true
    printf '%s\n' "${site:-http://deb.debian.org/debian}"
}

# pristine_root: $TARBALL, made once: debootstrap's root as it comes.
pristine_root() {
    [ -f "$TARBALL" ] && return 0
    if ! command -v debootstrap >/dev/null 2>&1; then
        apt-get -q update
        DEBIAN_FRONTEND=noninteractive \
            apt-get -q -y install --no-install-recommends debootstrap
    fi
    mkdir -p "$CACHE"
    rm -rf "$TARBALL.root" "$TARBALL.new"
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$TARBALL.root" "$MIRROR" \
        >"$TARBALL.log" 2>&1 || { tail -n 20 "$TARBALL.log"; return 1; }
    # Downloads are no part of a bare machine.
    rm -rf "$TARBALL.root"/var/cache/apt/archives/*.deb "$TARBALL.root"/var/lib/apt/lists/*
    tar -C "$TARBALL.root" --one-file-system -cf "$TARBALL.new" .
    rm -rf "$TARBALL.root"
    mv "$TARBALL.new" "$TARBALL"
}

# unpack_root: a fresh BARE, mounted on itself so that it can be a root with namespaces.
unpack_root() {
    mkdir -p "$BARE"
    mount --bind "$BARE" "$BARE"
    mount --make-private "$BARE"
    tar -C "$BARE" -xf "$TARBALL"
    mount -t proc proc "$BARE/proc"
    mount --rbind /dev "$BARE/dev"
    mount --rbind /sys "$BARE/sys"
    mount -t tmpfs -o mode=0755 run "$BARE/run"
}

# as_here: how this machine reaches the world: resolver, hosts, certificates, apt, pip.
as_here() {
    cat /etc/resolv.conf >"$BARE/etc/resolv.conf"
    cat /etc/hosts >"$BARE/etc/hosts"
    if [ -d /usr/local/share/ca-certificates ]; then
        cp -r /usr/local/share/ca-certificates "$BARE/usr/local/share/"
    fi
    chroot "$BARE" update-ca-certificates >/dev/null 2>&1
    # Certificates that somebody put straight into this machine's bundle count too.
    cat /etc/ssl/certs/ca-certificates.crt >"$BARE/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$BARE"/etc/apt/sources.list "$BARE"/etc/apt/sources.list.d
    for part in sources.list sources.list.d apt.conf apt.conf.d auth.conf auth.conf.d \
        preferences.d keyrings trusted.gpg.d; do
        [ ! -e "/etc/apt/$part" ] || cp -rL "/etc/apt/$part" "$BARE/etc/apt/"
    done
    keys_of_sources
    [ ! -f /etc/pip.conf ] || cp -L /etc/pip.conf "$BARE/etc/pip.conf"
    for settings in "$HOME/.pip/pip.conf" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf"; do
        [ ! -f "$settings" ] || { mkdir -p "$BARE/root/.config/pip" &&
            cp -L "$settings" "$BARE/root/.config/pip/pip.conf"; }
    done
    local_indexes
}

# keys_of_sources: the key rings that the sources name, where the bare root has none.
keys_of_sources() {
    cat "$BARE"/etc/apt/sources.list "$BARE"/etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE '/(usr/share|etc/apt)/keyrings/[^] ,]+' | sort -u | while read -r ring; do
            [ -e "$BARE$ring" ] || [ ! -e "$ring" ] ||
                { mkdir -p "$BARE${ring%/*}" && cp -L "$ring" "$BARE$ring"; }
        done
}

# local_indexes: directories of this machine that pip's settings name, read-only in their place.
local_indexes() {
    { cat "$BARE/etc/pip.conf" "$BARE/root/.config/pip/pip.conf" 2>/dev/null || true
      env | grep -E '^PIP_(FIND_LINKS|INDEX_URL|EXTRA_INDEX_URL)=' || true; } |
        tr ' =' '\n\n' | sed -n 's|^file://||; \|^/|p' | sort -u | while read -r directory; do
            top=/$(printf '%s' "$directory" | cut -d / -f 2-3)
            [ -d "$directory" ] && [ -d "$top" ] || continue
            case $top in /opt/* | /srv/* | /mnt/* | /var/* | /home/*) ;; *) continue ;; esac
            mountpoint -q "$BARE$top" && continue
            mkdir -p "$BARE$top"
            mount --rbind "$top" "$BARE$top"
            mount -o remount,bind,ro "$BARE$top"
        done
}

# checkout: the project as somebody else would get it.
checkout() {
    mkdir -p "$BARE/src/cardsession"
    if [ "$source" = commit ]; then
        git -C "$ROOT" -c safe.directory="$ROOT" archive HEAD >"$BARE/src/checkout.tar"
    else
        ( cd "$ROOT" && git -c safe.directory="$ROOT" ls-files -z --cached --others \
            --exclude-standard --deduplicate | tar --null --ignore-failed-read \
            --files-from=- -cf "$BARE/src/checkout.tar" 2>/dev/null ) || true
    fi
    tar -C "$BARE/src/cardsession" -xf "$BARE/src/checkout.tar"
}

# inside CMD…: CMD in the bare root's checkout, with a clean environment but for the network's
# settings; the working directory is not the checkout, as nothing may depend on it.
inside() {
    # shellcheck disable=SC2046
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LANG=C.UTF-8 ${CI:+CI="$CI"} $(network_settings) \
        chroot "$BARE" /bin/sh -c 'cd /src && exec "$@"' sh "$@"
}

# cut_off CMD…: the same without any network but an unused loopback.
cut_off() {
    # shellcheck disable=SC2046
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LANG=C.UTF-8 ${CI:+CI="$CI"} $(network_settings) \
        unshare --net chroot "$BARE" /bin/sh -c 'cd /src && exec "$@"' sh "$@"
}

# network_settings: NAME=VALUE words of the environment that say how to reach the world.
network_settings() {
    env | grep -E '^(PIP_[A-Z_]+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|[a-zA-Z]+_proxy|[A-Z]+_PROXY)=[^ ]*$' || true
}

MIRROR=$(mirror)
TARBALL=$CACHE/$SUITE-$(printf '%s' "$MIRROR" | sha256sum | cut -c 1-12).tar
mkdir -p "$CACHE"
BARE=$(mktemp -d "$CACHE/bare.XXXXXX")
clean() {
    [ -n "$keep" ] && { printf '== bare: kept in %s\n' "$BARE"; return; }
    umount -R -l "$BARE" 2>/dev/null || true
    # One file system: whatever is still mounted below is not ours to remove.
    rm -rf --one-file-system "$BARE"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

stage "bare $SUITE (once, then from $TARBALL)" pristine_root
stage "unpacked" unpack_root
stage "this machine's network settings" as_here
stage "the checkout ($source)" checkout
stage "first: sh daemon/try.sh --scripted" inside sh cardsession/daemon/try.sh --scripted
stage "again, no network: sh daemon/try.sh --scripted" \
    cut_off sh cardsession/daemon/try.sh --scripted
stage "sh tests/run.sh" inside sh cardsession/tests/run.sh
# What could miss the network is the set-up, and what it set up: lint, types, imports, and the
# story and a session with every real part. The tests themselves have all just passed.
stage "again, no network: sh tests/run.sh (set-up, checks, the story, a session)" \
    cut_off sh cardsession/tests/run.sh tests/test_try.py tests/system/test_system_session.py
printf '== bare: all of it, %d s\n' $(($(date +%s) - began))
