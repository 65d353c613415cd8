#!/bin/sh
# SPDX-License-Identifier: MIT
# The house rules a machine can see: who may include whom, licence lines,
# marks, line lengths.
failed=0 passed=0
verdict() { # name, offending lines
    if [ -n "$2" ]; then
        failed=$((failed + 1))
        echo "lint: $1:"
        echo "$2" | head -10
    else
        passed=$((passed + 1))
    fi
}

allowed() { # folder -> folders it may include from
    case $1 in
    base) echo base ;;
    tensor) echo 'tensor|base' ;;
    kern) echo 'kern|base' ;;
    ops) echo 'ops|kern|tensor|base' ;;
    graph) echo 'graph|ops|tensor|base' ;;
    run) echo 'run|graph|ops|kern|tensor|base' ;;
    explain) echo 'explain|base' ;;
    onnx) echo 'onnx|graph|ops|tensor|base' ;;
    api) echo 'api|onnx|explain|run|graph|ops|tensor|base' ;;
    cli) echo 'cli' ;;
    esac
}
for folder in base tensor kern ops graph run explain onnx api cli; do
    [ -d "src/$folder" ] || continue
    bad=$(grep -nE '^#include "' src/$folder/*.[ch] | grep -vE "\"(gradcam|$(allowed $folder))/" |
        grep -vE ':#include "[a-z_0-9]+\.h"$')
    verdict "src/$folder includes what its layer may not" "$bad"
done
sources=$(find src include tests docs bindings -name '*.[ch]' 2>/dev/null)
verdict 'no SPDX line' "$(grep -L 'SPDX-License-Identifier: MIT' $sources)"
verdict 'a mark left in the tree' "$(grep -nE '\b(TODO|FIXME|XXX|HACK)\b' $sources)"
verdict 'a line over 120 characters' "$(grep -nE '^.{121,}' $sources)"
verdict 'a globals-unfriendly call in the library' \
    "$(grep -nE '\b(exit|abort|printf|fprintf)\(' src/base/*.c src/tensor/*.c src/kern/*.c src/ops/*.c \
        src/graph/*.c src/run/*.c src/explain/*.c src/onnx/*.c src/api/*.c)"
# Header, symbol map and library name the same functions.
header=$(tr '\n' ' ' <include/gradcam/gradcam.h | grep -oE 'GRADCAM_API [^;(]*\(' | grep -oE 'gc_[a-z0-9_]+\(' | tr -d '(' | sort -u)
map=$(grep -oE '^ +gc_[a-z0-9_]+;' src/gradcam.map | tr -d ' ;' | sort -u)
[ "$header" = "$map" ] && bad= || bad='src/gradcam.map and the header differ'
verdict 'symbol map' "$bad"
if [ -e build/libgradcam.so ] && command -v nm >/dev/null; then
    library=$(nm -D --defined-only build/libgradcam.so | grep -oE 'gc_[a-z0-9_]+' | sort -u)
    [ "$header" = "$library" ] && bad= || bad='build/libgradcam.so exports something else than the header'
    verdict 'exported symbols' "$bad"
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
