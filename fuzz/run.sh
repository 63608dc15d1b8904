#!/bin/sh
# Runs the fuzz targets with libFuzzer, for FUZZ_TIME seconds each, FUZZ_JOBS of them at a time, and prints the executions and
# the coverage of each. The exit status is 1 if one has a finding, which is then in fuzz/artifacts.
#
# Usage: fuzz/run.sh [TARGET...]
#        fuzz/run.sh minimize [TARGET...]   writes what the runs have found into fuzz/corpus, as few files as possible
set -eu

cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
time=${FUZZ_TIME:-60}
jobs=${FUZZ_JOBS:-2}
state=fuzz/target/state
# libFuzzer needs no nightly compiler, only coverage, which a stable one has too.
export RUSTC_BOOTSTRAP=1

minimize=
[ "${1:-}" != minimize ] || { minimize=1; shift; }
targets=$*
[ -n "$targets" ] || targets=$(ls fuzz/fuzz_targets | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
binaries=fuzz/target/$host/release

# No sanitizer: the crate forbids unsafe code, so there is nothing for one to find in it, and a run without is much faster.
# Overflows and debug assertions are checked.
build() {
    if [ "$(echo "$targets" | wc -w)" = 1 ]; then
        $cargo fuzz build --sanitizer none "$targets"
    else
        $cargo fuzz build --sanitizer none
    fi
}

dictionary() {
    for name in "$1" "${1%%_*}" "${1##*_}"; do
        [ ! -f "fuzz/dictionaries/$name.dict" ] || { echo "-dict=fuzz/dictionaries/$name.dict"; return; }
    done
}

run_one() {
    name=$1
    mkdir -p "$state/$name/corpus" "$state/$name/seeds" "fuzz/artifacts/$name" "fuzz/corpus/$name"
    # shellcheck disable=SC2046 # one word or none
    MAILGRESS_FUZZ_SEEDS=$state/$name/seeds "$binaries/$name" -max_total_time="$time" -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" $(dictionary "$name") \
        "$state/$name/corpus" "fuzz/corpus/$name" "$state/$name/seeds" >"$state/$name/log" 2>&1 ||
        touch "$state/$name/failed"
}

# The seeds come first, so that the corpus has nothing that they have.
minimize_one() {
    name=$1
    merged=$state/$name/merged
    rm -rf "$merged" && mkdir -p "$merged" "$state/$name/corpus" "fuzz/corpus/$name"
    MAILGRESS_FUZZ_SEEDS=$state/$name/seeds "$binaries/$name" -runs=0 "$state/$name/corpus" >/dev/null 2>&1
    cp "$state/$name/seeds"/* "$merged"
    "$binaries/$name" -merge=1 -max_len="${FUZZ_LONGEST:-512}" "$merged" "fuzz/corpus/$name" "$state/$name/corpus" \
        >"$state/$name/merge.log" 2>&1
    find "fuzz/corpus/$name" -type f -regextype posix-basic -regex '.*/[0-9a-f]\{40\}' -delete
    find "$merged" -type f -regextype posix-basic -regex '.*/[0-9a-f]\{40\}' -exec cp {} "fuzz/corpus/$name" \;
    echo "$name: $(find "fuzz/corpus/$name" -type f | wc -l) files, $(find "fuzz/corpus/$name" -type f -exec cat {} + | wc -c) bytes"
}

build
if [ -n "$minimize" ]; then
    for name in $targets; do minimize_one "$name"; done
    exit
fi

for name in $targets; do rm -f "$state/$name/failed"; done
running=0
for name in $targets; do
    # The shell waits for all of a batch, which take the same time.
    run_one "$name" &
    running=$((running + 1))
    [ $((running % jobs)) != 0 ] || wait
done
wait

# The last number behind a word of the log.
last() { sed -n "s/.*$2: *\([0-9][0-9]*\).*/\1/p" "$state/$1/log" | tail -n 1; }

printf '\n%-16s %12s %10s %8s %10s %8s\n' target executions 'per second' edges features seconds
status=0
for name in $targets; do
    printf '%-16s %12s %10s %8s %10s %8s' "$name" "$(last "$name" 'stat::number_of_executed_units')" \
        "$(last "$name" 'stat::average_exec_per_sec')" "$(last "$name" ' cov')" "$(last "$name" ' ft')" "$time"
    if [ -e "$state/$name/failed" ]; then
        status=1
        printf '  FAILED: %s' "$(sed -n 's/^.*Test unit written to //p' "$state/$name/log" | tail -n 1)"
    fi
    echo
done
if [ $status != 0 ]; then
    echo "See the logs in $state/TARGET/log. CONTRIBUTING.md says what to do with a finding." >&2
fi
exit $status
