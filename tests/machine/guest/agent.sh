# A line in: a number, the seconds it may take, a command and its standard input, each in base64
# (- is none). A line out: the number, the exit status, the output in base64. A command that takes
# longer has the exit status 124.
decoded() { [ "$1" = - ] || base64 -d <<<"$1"; }
while read -r number seconds command input; do
    output=$(timeout --kill-after=5 "$seconds" bash -c "$(decoded "$command")" \
        2>&1 < <(decoded "$input") | base64 -w 0; exit "${PIPESTATUS[0]}")
    printf '%s %s %s\n' "$number" "$?" "$output"
done
