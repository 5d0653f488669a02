#!/bin/sh
# The machine's disk: sh tests/machine/image.sh PACKAGE.deb
# A bare Debian 12 with a kernel, systemd and dbus, without anything of ours: what PACKAGE needs
# lies in apt's cache, not installed, so that apt installs PACKAGE there without a network.
# The last line is the directory that holds disk.img, vmlinuz and initrd. It is made once and kept
# in ${XDG_CACHE_HOME:-$HOME/.cache}/cardsession; its name is a digest of what it is made of.
# Root, or sudo.
set -eu
HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
ROOT=$(dirname "$(dirname "$HERE")")
PACKAGE=$(readlink -f "${1:?which package}")

if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=XDG_CACHE_HOME,HOME,CI,CARDSESSION_MIRROR sh "$0" "$PACKAGE"
fi
if [ -z "${CARDSESSION_IMAGE:-}" ]; then
    export CARDSESSION_IMAGE=1
    exec unshare --mount --propagation private -- sh "$0" "$PACKAGE"
fi
. "$ROOT/tests/debian.sh"

# What the machine has before anybody installs a package of ours.
#   systemd-sysv udev dbus kmod   a machine that boots, sees devices and has a system bus
#   libpam-systemd                people's sessions, as on a workstation
PACKAGES='dbus kmod libpam-systemd systemd-sysv udev'
KERNEL=linux-image-amd64
SIZE=3G

needs=$(dpkg-deb -f "$PACKAGE" Pre-Depends Depends Recommends)
KEY=$({ printf '%s\n' "$MIRROR" "$SUITE" "$needs"; cat "$0" "$ROOT/tests/debian.sh" \
    "$HERE"/guest/*; } | sha256sum | cut -c 1-16)
IMAGE=$CACHE/machine/$KEY
mkdir -p "$CACHE/machine"
exec 9>"$CACHE/machine/lock"
flock 9
if [ -f "$IMAGE/done" ]; then
    touch "$IMAGE"
    printf '%s\n' "$IMAGE"
    exit 0
fi

NEW=$(mktemp -d "$CACHE/machine/new.XXXXXX")
DISK=$NEW/root
clean() {
    remove_root "$DISK"
    rm -rf --one-file-system "$NEW"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '== image: %s\n' "$*" >&2; }

# inside CMD…: CMD in the machine's root.
inside() { clean_environment DEBIAN_FRONTEND=noninteractive chroot "$DISK" "$@"; }

# quietly CMD…: what it says is shown only if it fails.
quietly() {
    "$@" >"$NEW/log" 2>&1 </dev/null || { tail -n 40 "$NEW/log" >&2; return 1; }
}

# only_debian: the sources of this machine that are Debian's; others have nothing for us.
only_debian() {
    for source in "$DISK"/etc/apt/sources.list "$DISK"/etc/apt/sources.list.d/*; do
        [ -f "$source" ] || continue
        grep -qE '/debian(-security)?/?( |$)' "$source" || rm "$source"
    done
}

# debian_packages: what the machine has, and in apt's cache what the package needs.
debian_packages() {
    printf '#!/bin/sh\nexit 101\n' >"$DISK/usr/sbin/policy-rc.d"
    chmod +x "$DISK/usr/sbin/policy-rc.d"
    quietly inside apt-get -q update
    # shellcheck disable=SC2086
    quietly inside apt-get -q -y install --no-install-recommends $PACKAGES
    inside apt-get clean
    kernel
    cp "$PACKAGE" "$DISK/tmp/wanted.deb"
    # With what it recommends, as a technician's apt would.
    quietly inside apt-get -q -y install --download-only /tmp/wanted.deb
    # Reads the lists once here, where it takes a second and not twenty.
    quietly inside apt-get -q -y --simulate install /tmp/wanted.deb
    rm "$DISK/tmp/wanted.deb" "$DISK/usr/sbin/policy-rc.d"
}

# kernel: unpacked rather than installed: its package would bring initramfs-tools, whose initrd
# takes longer than ours. Of the modules those that such a machine can use.
kernel() {
    image=$(inside apt-cache depends --important "$KERNEL" |
        sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1)
    quietly inside sh -c "cd /tmp && apt-get -q download ${image:?no kernel} busybox-static"
    dpkg-deb -x "$DISK"/tmp/linux-image-*.deb "$NEW/kernel"
    dpkg-deb -x "$DISK"/tmp/busybox-static*.deb "$NEW/busybox"
    rm "$DISK"/tmp/*.deb
    release=$(basename "$NEW"/kernel/lib/modules/*)
    modules=$NEW/kernel/lib/modules/$release/kernel
    rm -rf "$modules"/sound "$modules"/net "$modules"/arch
    for part in "$modules"/drivers/*; do
        case ${part##*/} in acpi | block | char | rtc | usb | virtio) ;; *) rm -rf "$part" ;; esac
    done
    mkdir -p "$DISK/lib/modules"
    mv "$NEW/kernel/lib/modules/$release" "$DISK/lib/modules/"
    inside depmod "$release"
    mv "$NEW"/kernel/boot/vmlinuz-* "$NEW/vmlinuz"
    initrd "$release"
}

# initrd RELEASE: finds the disk, mounts it, and that is all.
initrd() {
    tree=$NEW/initrd.d
    mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/new" "$tree/lib"
    cp "$NEW/busybox/bin/busybox" "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    { printf '#!/bin/sh\n'
      for module in virtio_pci virtio_blk ext4 crc32c_generic; do
          inside modprobe --set-version "$1" --show-depends "$module"
      done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
          cp "$DISK$file" "$tree/lib/"
          printf '/bin/busybox insmod /lib/%s\n' "${file##*/}"
      done
      cat "$HERE/guest/init"
    } >"$tree/init"
    chmod +x "$tree/init"
    ( cd "$tree" && find . | cpio --quiet -o -H newc ) >"$NEW/initrd"
}

# settings: people, the agent, and nothing that happens by itself while a test looks.
settings() {
    printf 'counter\n' >"$DISK/etc/hostname"
    printf '127.0.0.1 localhost counter\n' >"$DISK/etc/hosts"
    printf '/dev/vda / ext4 rw,noatime 0 0\n' >"$DISK/etc/fstab"
    printf '%s\n' "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$DISK/etc/machine-id"
    rm -rf "$DISK"/etc/apt/auth.conf* "$DISK/etc/pip.conf" "$DISK/root/.config" "$DISK/etc/resolv.conf"
    for name in chemist technician stranger; do
        inside useradd --create-home --shell /bin/bash "$name"
    done
    inside systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer \
        systemd-networkd.service systemd-resolved.service systemd-timesyncd.service \
        getty@tty1.service serial-getty@ttyS0.service systemd-pstore.service
    mkdir -p "$DISK/usr/lib/machine" "$DISK/var/log/journal"
    cp "$HERE"/guest/* "$DISK/usr/lib/machine/"
    rm "$DISK/usr/lib/machine/init"
    mv "$DISK/usr/lib/machine/machine-agent.service" "$DISK/etc/systemd/system/"
    inside systemctl --quiet enable machine-agent.service
    # Whatever may leave a core does, where a test finds it: a service that must not is the point.
    mkdir -p "$DISK/etc/sysctl.d" "$DISK/etc/systemd/system.conf.d"
    mkdir -m 1777 "$DISK/var/cores"
    printf 'kernel.core_pattern=/var/cores/%%e.%%p\nfs.suid_dumpable=0\n' \
        >"$DISK/etc/sysctl.d/90-cores.conf"
    printf '[Manager]\nDefaultLimitCORE=infinity\n' >"$DISK/etc/systemd/system.conf.d/cores.conf"
}

say "a new one: $IMAGE (once; a few minutes)"
pristine_root
unpack_root "$DISK"
as_here "$DISK"
only_debian
debian_packages
settings
umount -R -l "$DISK"
truncate -s "$SIZE" "$NEW/disk.img"
quietly mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$DISK" "$NEW/disk.img"

mkdir "$NEW/done.d"
mv "$NEW/disk.img" "$NEW/vmlinuz" "$NEW/initrd" "$NEW/done.d/"
: >"$NEW/done.d/done"
# Images that nobody has used for a week; a younger one may be another checkout's.
find "$CACHE/machine" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
chmod 0755 "$NEW/done.d"
mv "$NEW/done.d" "$IMAGE"
say "made: $(du -sh "$IMAGE" | cut -f 1)"
printf '%s\n' "$IMAGE"
