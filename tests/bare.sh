#!/bin/sh
# From nothing: a bare Debian 12 root, the committed checkout in it, and there
#   sh daemon/try.sh --scripted, and again without a network,
#   sh tests/run.sh, and again without a network (set-up, checks, a few tests).
# Root, or sudo. --worktree takes the files as they lie instead of the last commit;
# --keep leaves the root for a look; CARDSESSION_MIRROR names another Debian mirror.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

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

# inside CMD…: CMD in the bare root's checkout; the working directory is not the checkout, as
# nothing may depend on it.
inside() {
    clean_environment chroot "$BARE" /bin/sh -c 'cd /src && exec "$@"' sh "$@"
}

# cut_off CMD…: the same without any network but an unused loopback.
cut_off() {
    clean_environment unshare --net chroot "$BARE" /bin/sh -c 'cd /src && exec "$@"' sh "$@"
}

. "$ROOT/tests/debian.sh"
mkdir -p "$CACHE"
BARE=$(mktemp -d "$CACHE/bare.XXXXXX")
clean() {
    [ -n "$keep" ] && { printf '== bare: kept in %s\n' "$BARE"; return; }
    remove_root "$BARE"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

stage "bare $SUITE (once, then from $TARBALL)" pristine_root
stage "unpacked" unpack_root "$BARE"
stage "this machine's network settings" as_here "$BARE"
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
