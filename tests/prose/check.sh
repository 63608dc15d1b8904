#!/bin/sh
# Looks for phrases in the documentation that readers had to read twice, with Harper and the rules beside this file.
# tests/docs/prose.rs looks for the same phrases in src/, charts/ and deploy/.
#
# Usage: tests/prose/check.sh HARPER
set -eu

harper=$1
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for rule in tests/prose/*.weir; do
    "$harper" test "$rule" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
done
# A weirpack is a ZIP archive of rules and a manifest.
python3 -m zipfile -c "$work/rules.weirpack" tests/prose/*.weir tests/prose/manifest.json

rules=$(basename -s .weir tests/prose/*.weir | paste -s -d , -)
find ./*.md docs -name '*.md' | sed 's|^\./||' >"$work/pages"
if ! RUST_BACKTRACE=0 xargs "$harper" lint --weirpacks "$work/rules.weirpack" --only "$rules" --format compact \
    --quiet --no-color <"$work/pages" 2>"$work/log"; then
    grep -v 'user dictionary\|^$' "$work/log" >&2
    exit 1
fi
