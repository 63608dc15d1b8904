#!/bin/sh
# Runs all tests, one suite after another, and says at the end how long each took and why tests failed. A suite that fails
# does not keep the others from running; the exit status is 1 then. More arguments go to every suite:
# `tests/run.sh -- --nocapture`. What each suite printed is also in target/test-output.
set -u

cargo=${CARGO:-cargo}
cd "$(dirname "$0")/.." || exit 1

output=${CARGO_TARGET_DIR:-target}/test-output
rm -rf "$output"
mkdir -p "$output" || exit 1

table= failed= began=$(date +%s)

timed() { # NAME COMMAND...
    name=$1
    shift
    start=$(date +%s)
    { "$@" 2>&1 || : >"$output/$name.failed"; } | tee "$output/$name"
    [ ! -e "$output/$name.failed" ] || failed="$failed $name"
    table="$table$(printf '%-16s %6d' "$name" $(($(date +%s) - start)))
"
}

timed build "$cargo" test --no-run
if [ -z "$failed" ]; then
    timed unit "$cargo" test --lib --bins "$@"
    for suite in tests/*.rs tests/*/main.rs; do
        suite=${suite#tests/}
        suite=${suite%/main.rs}
        suite=${suite%.rs}
        threads=${RUST_TEST_THREADS:-}
        # Its tests wait most of the time.
        [ "$suite" != it ] || threads=${threads:-$(($(nproc) * 2))}
        timed "$suite" env ${threads:+RUST_TEST_THREADS="$threads"} "$cargo" test --test "$suite" "$@"
    done
    timed doc "$cargo" test --doc "$@"
    # Whether the comparison with nginx works; its numbers mean nothing in a debug build.
    timed bench env MAILGRESS_BENCH=check "$cargo" test --bench compare
fi

printf '\n%-16s %6s\n%s%-16s %6d\n' suite seconds "$table" total $(($(date +%s) - began))
[ -n "$failed" ] || exit 0
for name in $failed; do
    printf '\n%s failed:\n' "$name"
    grep -A 3 -e ' panicked at ' -e '^error' "$output/$name" | head -n 60
done >&2
echo "failed:$failed" >&2
exit 1
