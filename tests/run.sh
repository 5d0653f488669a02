#!/bin/sh
# Sets up as daemon/try.sh does, then every check: lint, types, import directions, tests.
# Arguments go to pytest: sh tests/run.sh -k story -x
set -u
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
. "$ROOT/daemon/setup.sh"
setup_all DEV
cd "$ROOT" || exit 1
PATH=$VENV/bin:$PATH
export PATH

failed=
check() {
    printf '== %s\n' "$*"
    "$@" || failed="$failed${failed:+, }$1${2:+ $2}"
}
check ruff check daemon tests
check ruff format --check daemon tests
check mypy
check lint-imports --no-logo
# The tests run in any case, and their closing line is the last one.
[ -z "$failed" ] || printf '== FAILED so far: %s\n' "$failed"
printf '== pytest %s\n' "$*"
( in_namespace "$VENV/bin/python" -P -m pytest "$@" )
status=$?
if [ "$status" = 0 ] && [ -n "$failed" ]; then
    exit 1
fi
exit "$status"
