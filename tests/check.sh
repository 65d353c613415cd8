#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the test programs given after the build folder, then the lint; prints
# "N passed, N failed, N skipped" and fails when anything failed.
build=$1
shift
passed=0 failed=0 skipped=0
mkdir -p "$build/tmp"

count() { # the closing line of one program
    line=$(tail -n 1 "$build/tmp/out")
    p=$(echo "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')
    f=$(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
    s=$(echo "$line" | sed -n 's/.* \([0-9]*\) skipped.*/\1/p')
    [ -n "$p" ] || { f=1; p=0; echo "$1: died before its closing line"; }
    passed=$((passed + p)) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
}

for test in "$@" "sh tests/lint.sh"; do
    echo "== $test"
    case $test in sh*) $test "$build" >"$build/tmp/out" 2>&1 ;; *) "./$test" "$build/tmp" >"$build/tmp/out" 2>&1 ;; esac
    grep -v ' passed, ' "$build/tmp/out"
    count "$test"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
