#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the test programs given after the build folder, the ONNX node tests and the
# hostile files (where there are Python and the data) and the lint; prints "N passed, N failed, N
# skipped" and fails when anything failed.
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

have_python() { python3 -c 'import numpy, onnx' 2>/dev/null; }

conformance() {
    if have_python; then
        # a sanitizer's runtime must be there before the interpreter
        runtime=$(ldd "$build/libgradcam.so" 2>/dev/null | sed -n 's/.*=> \([^ ]*lib[at]san[^ ]*\) .*/\1/p')
        LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0:$ASAN_OPTIONS GRADCAM_LIBRARY=$build/libgradcam.so \
            python3 tests/python/conformance.py --tolerate-new
    else
        printf 'skipped: conformance wants Python 3 with numpy and onnx\n0 passed, 0 failed, 1 skipped\n'
    fi
}

malformed() {
    if have_python; then
        python3 tests/python/malformed.py "$build/gradcam"
    else
        printf 'skipped: the hostile files want Python 3 with numpy and onnx\n0 passed, 0 failed, 1 skipped\n'
    fi
}

for test in "$@" conformance malformed "sh tests/command.sh" "sh tests/bench/check.sh" "sh tests/lint.sh"; do
    echo "== $test"
    case $test in
    sh*) $test "$build" >"$build/tmp/out" 2>&1 ;;
    conformance | malformed) "$test" >"$build/tmp/out" 2>&1 ;;
    *) "./$test" "$build/tmp" >"$build/tmp/out" 2>&1 ;;
    esac
    sed '$d' "$build/tmp/out"
    count "$test"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
