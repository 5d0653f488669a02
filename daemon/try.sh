#!/bin/sh
# Sets up and runs cardsessiond on this machine: see usage below, or -h.
set -u
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1

usage() {
    cat <<'TEXT'
usage: sh daemon/try.sh [--real] [--scripted | --exec CMD [ARG...]]

Installs what is missing, then brings up the card service with a virtual reader (in a
namespace of its own: this machine's card service is not touched), a private bus,
cardsessiond and the developer's card, and shows "cardsessionctl watch".

  --scripted   play one story without questions, print each step as an independent
               subscriber saw it on the bus; exit 0 only if all of it was seen
  --exec CMD   run CMD in the same place, with DBUS_SYSTEM_BUS_ADDRESS and
               CARDSESSION_CARD (the card's control socket) set and the tools on PATH;
               exit with its status
  --real       this machine's own card service and readers instead of the virtual
               one (the bus is private all the same); not with --scripted
  -h, --help   this text

Ctrl-C ends everything. Nothing stays but .venv, .venv.lock and the installed packages.
TEXT
}

refuse() {
    printf 'try.sh: %s\n\n' "$1" >&2
    usage >&2
    exit 64
}

mode=watch real=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --real) real=real ;;
        --scripted) mode=scripted ;;
        --exec)
            mode=exec
            shift
            [ $# -gt 0 ] || refuse "--exec needs a command"
            break
            ;;
        *) refuse "unknown argument: $1" ;;
    esac
    shift
done
if [ "$mode" = scripted ] && [ -n "$real" ]; then
    refuse "--scripted plays with the virtual card: it cannot be --real"
fi
[ "$mode" = exec ] || [ $# = 0 ] || refuse "unknown argument: $1"

. "$ROOT/daemon/setup.sh"
setup_all RUNTIME "$real"
set -- "$VENV/bin/python" -P -m cardsession.stack ${real:+--real} "$mode" "$@"
if [ -n "$real" ]; then
    exec "$@"
fi
in_namespace "$@"
