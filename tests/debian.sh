# Bare Debian roots: shared by tests/bare.sh and tests/machine/image.sh, which source it as root,
# in a mount namespace of their own. POSIX sh; the caller has set -eu.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cardsession
SUITE=bookworm

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

# unpack_root ROOT: a fresh one, mounted on itself so that it can be a root with namespaces.
unpack_root() {
    mkdir -p "$1"
    mount --bind "$1" "$1"
    mount --make-private "$1"
    tar -C "$1" -xf "$TARBALL"
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    mount --rbind /sys "$1/sys"
    mount -t tmpfs -o mode=0755 run "$1/run"
}

# remove_root ROOT: unmounts and removes it. One file system: whatever is still mounted below is
# not ours to remove.
remove_root() {
    umount -R -l "$1" 2>/dev/null || true
    rm -rf --one-file-system "$1"
}

# as_here ROOT: how this machine reaches the world: resolver, hosts, certificates, apt, pip.
as_here() {
    cat /etc/resolv.conf >"$1/etc/resolv.conf"
    cat /etc/hosts >"$1/etc/hosts"
    if [ -d /usr/local/share/ca-certificates ]; then
        cp -r /usr/local/share/ca-certificates "$1/usr/local/share/"
    fi
    chroot "$1" update-ca-certificates >/dev/null 2>&1
    # Certificates that somebody put straight into this machine's bundle count too.
    cat /etc/ssl/certs/ca-certificates.crt >"$1/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d
    for part in sources.list sources.list.d apt.conf apt.conf.d auth.conf auth.conf.d \
        preferences.d keyrings trusted.gpg.d; do
        [ ! -e "/etc/apt/$part" ] || cp -rL "/etc/apt/$part" "$1/etc/apt/"
    done
    keys_of_sources "$1"
    [ ! -f /etc/pip.conf ] || cp -L /etc/pip.conf "$1/etc/pip.conf"
    for settings in "$HOME/.pip/pip.conf" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf"; do
        [ ! -f "$settings" ] || { mkdir -p "$1/root/.config/pip" &&
            cp -L "$settings" "$1/root/.config/pip/pip.conf"; }
    done
    local_indexes "$1"
}

# keys_of_sources ROOT: the key rings that the sources name, where the bare root has none.
keys_of_sources() {
    cat "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE '/(usr/share|etc/apt)/keyrings/[^] ,]+' | sort -u | while read -r ring; do
            [ -e "$1$ring" ] || [ ! -e "$ring" ] ||
                { mkdir -p "$1${ring%/*}" && cp -L "$ring" "$1$ring"; }
        done
}

# local_indexes ROOT: directories of this machine that pip's settings name, read-only in their
# place.
local_indexes() {
    { cat "$1/etc/pip.conf" "$1/root/.config/pip/pip.conf" 2>/dev/null || true
      env | grep -E '^PIP_(FIND_LINKS|INDEX_URL|EXTRA_INDEX_URL)=' || true; } |
        tr ' =' '\n\n' | sed -n 's|^file://||; \|^/|p' | sort -u | while read -r directory; do
            top=/$(printf '%s' "$directory" | cut -d / -f 2-3)
            [ -d "$directory" ] && [ -d "$top" ] || continue
            case $top in /opt/* | /srv/* | /mnt/* | /var/* | /home/*) ;; *) continue ;; esac
            mountpoint -q "$1$top" && continue
            mkdir -p "$1$top"
            mount --rbind "$top" "$1$top"
            mount -o remount,bind,ro "$1$top"
        done
}

# network_settings: NAME=VALUE words of the environment that say how to reach the world.
network_settings() {
    env | grep -E '^(PIP_[A-Z_]+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|[a-zA-Z]+_proxy|[A-Z]+_PROXY)=[^ ]*$' || true
}

# clean_environment CMD…: CMD with nothing in its environment but the network's settings.
clean_environment() {
    # shellcheck disable=SC2046
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LANG=C.UTF-8 ${CI:+CI="$CI"} $(network_settings) "$@"
}

MIRROR=$(mirror)
TARBALL=$CACHE/$SUITE-$(printf '%s' "$MIRROR" | sha256sum | cut -c 1-12).tar
