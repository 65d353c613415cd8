#!/bin/sh
# SPDX-License-Identifier: MIT
# The house rules a machine can see: who may include whom, licence lines,
# marks, lengths of lines, functions and files, one list of exported symbols and
# of sources.  The argument is the build folder, "build" if there is none.
build=${1:-build}
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
    api) echo 'api|onnx|explain|run|graph|ops|kern|tensor|base' ;;
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
# Templates of kernels are long because they are one loop nest.
short=$(echo "$sources" | grep -v '^src/kern/')
verdict 'a function over 80 lines' "$(awk '
    FNR == 1 { start = 0 }
    /^[a-zA-Z_].*\(/ && !/;$/ { start = FNR; name = $0 }
    /^ .*\);$/ && FNR == start + 1 { start = 0 } # a prototype on two lines
    /^}/ && start { if (FNR - start + 1 > 80) print FILENAME ":" start ": " FNR - start + 1 " lines: " name; start = 0 }
    ' $short)"
# The public header is the reference, too: its comments are not counted.
verdict 'a file over 600 lines' "$(awk '
    FNR == 1 { n = 0; comment = 0 }
    FILENAME ~ /^include/ { if (/^ *\/\*/) comment = 1; told = comment; if (/\*\/$/) comment = 0; if (told) next }
    ++n == 601 { print FILENAME }
    ' $short)"
listed=$(for part in library command; do sh src/sources.sh $part; done | sort)
[ "$listed" = "$(find src -name '*.c' | sort)" ] && bad= || bad='src/sources.sh does not list exactly the files of src'
verdict 'list of sources' "$bad"
verdict 'a globals-unfriendly call in the library' \
    "$(grep -nE '\b(exit|abort|printf|fprintf)\(' $(sh src/sources.sh library))"
# Header, symbol map and library name the same functions.
header=$(tr '\n' ' ' <include/gradcam/gradcam.h | grep -oE 'GRADCAM_API [^;(]*\(' | grep -oE 'gc_[a-z0-9_]+\(' | tr -d '(' | sort -u)
map=$(grep -oE '^ +gc_[a-z0-9_]+;' src/gradcam.map | tr -d ' ;' | sort -u)
[ "$header" = "$map" ] && bad= || bad='src/gradcam.map and the header differ'
verdict 'symbol map' "$bad"
if [ -e "$build/libgradcam.so" ] && command -v nm >/dev/null; then
    library=$(nm -D --defined-only "$build/libgradcam.so" | grep -oE 'gc_[a-z0-9_]+' | sort -u)
    [ "$header" = "$library" ] && bad= || bad='libgradcam.so exports something else than the header'
    verdict 'exported symbols' "$bad"
fi
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
