#!/bin/sh
# SPDX-License-Identifier: MIT
# Does the benchmark run, count right and refuse wrong usage?  The argument is
# the build folder, "build" if there is none.
build=${1:-build}
failed=0 passed=0
tmp=$build/tmp/bench
rm -rf "$tmp"
mkdir -p "$tmp"

verdict() { # what, problem or nothing
    if [ -n "$2" ]; then
        failed=$((failed + 1))
        echo "FAILED: bench: $1: $2"
    else
        passed=$((passed + 1))
    fi
}

"$build/bench" --nets squeezenet1_1 --threads 1,2 --batch 1,2 --size 96,128 --seconds 0 --json "$tmp/out.json" >"$tmp/out" 2>"$tmp/err" &&
    bad=$(cat "$tmp/err") || bad="status $?: $(cat "$tmp/err")"
verdict 'runs' "$bad"
bad=
for batch in 1 2; do
    for size in 96 128; do
        for threads in 1 2; do
            grep -q "\"net\": \"squeezenet1_1\", \"batch\": $batch, \"size\": $size, \"threads\": $threads," "$tmp/out.json" ||
                bad="$bad no entry for batch $batch, size $size, $threads threads"
        done
    done
done
for job in forward gradcam guided sweep; do
    [ "$(grep -c "\"$job\": {\"median_ms\": [0-9.]*, \"min_ms\": [0-9.]*, \"calls\": [1-9]" "$tmp/out.json")" = 8 ] ||
        bad="$bad no times of $job"
done
verdict 'JSON' "$bad"
# threads, batch, size, a figure a job; the first row of each number of threads is the unit.
grown=$(sed -n '/time per pixel/,$p' "$tmp/out" | grep -c '^ *[12]  *[12]  *[0-9]*\( *[0-9.]*\)\{4\}$')
units=$(sed -n '/time per pixel/,$p' "$tmp/out" | grep -c '^ *[12]  *1  *96\( *1\.00\)\{4\}$')
[ "$grown $units" = '8 2' ] && bad= || bad="$grown rows, $units of them units"
verdict 'growth' "$bad"
# SqueezeNet 1.1 has 349,151,936 multiply-adds at 224x224 (1,235,496 weights).
"$build/bench" --nets squeezenet1_1 --threads 1 --seconds 0 --json "$tmp/out.json" >"$tmp/out" 2>"$tmp/err"
gflop=$(sed -n 's/.*"forward".*"gflop": \([0-9.]*\),.*/\1/p' "$tmp/out.json")
[ "$gflop" = 0.698304 ] && bad= || bad="a forward pass of \"$gflop\" GFLOP"
verdict 'FLOPs' "$bad"
grep -q "\"weight_bytes\": $((4 * 1235496))," "$tmp/out.json" && bad= || bad='not 1,235,496 of them'
verdict 'weights' "$bad"
for wrong in '--nets nonet' '--threads 0' '--threads 1,' '--seconds x' '--size 1' '--size 96,' '--batch 0' '--batch 1,,2' '--json' '--what 1'; do
    # shellcheck disable=SC2086
    "$build/bench" $wrong >"$tmp/out" 2>"$tmp/err"
    status=$?
    bad=
    [ "$status" = 2 ] || bad="status $status"
    [ -s "$tmp/err" ] || bad="$bad no message"
    verdict "bench $wrong" "$bad"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
