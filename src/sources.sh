#!/bin/sh
# SPDX-License-Identifier: MIT
# The one list of sources, for make and meson: every .c file of the folders of
# a part.  Run in the project's folder:  sh src/sources.sh library|command|demo|tests|bench|kern
case $1 in
library) folders='src/base src/tensor src/kern src/ops src/graph src/run src/explain src/onnx src/api' ;;
command) folders=src/cli ;;
tests) folders=tests/unit ;;
bench) folders=tests/bench ;;
kern) # the checker times kernels against the same peak as the bench
    ls tests/kern/*.c
    echo tests/bench/peak.c
    exit ;;
demo) # the demo writes its picture with the command's writer, font and colours
    ls docs/demo/*.c
    echo src/cli/colormap.c
    echo src/cli/font.c
    echo src/cli/out_file.c
    echo src/cli/png_store.c
    exit ;;
*)
    echo "usage: sh src/sources.sh library|command|demo|tests|bench|kern" >&2
    exit 2 ;;
esac
for folder in $folders; do
    ls "$folder"/*.c
done
