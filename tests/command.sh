#!/bin/sh
# SPDX-License-Identifier: MIT
# The command and the examples as a user meets them.  A refusal is one line on
# stderr that says what to do, nothing on stdout, status 1; wrong usage is 2.
# The argument is the build folder, "build" if there is none.
build=${1:-build}
examples=$build
[ ! -d "$build/examples" ] || examples=$build/examples
failed=0 passed=0 skipped=0
model=docs/demo/garments.onnx
scene=docs/demo/scenes/002.ppm
tmp=$build/tmp/command
rm -rf "$tmp"
mkdir -p "$tmp"

verdict() { # what, problem or nothing
    if [ -n "$2" ]; then
        failed=$((failed + 1))
        echo "FAILED: $1: $2"
    else
        passed=$((passed + 1))
    fi
}

run() { # arguments of the command; status in $status
    "$build/gradcam" "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}

refuses() { # status, what the message must hold, arguments
    want=$1 hint=$2
    shift 2
    run "$@"
    bad=
    [ "$status" = "$want" ] || bad="status $status instead of $want"
    [ ! -s "$tmp/out" ] || bad="$bad; something on stdout"
    [ "$(wc -l <"$tmp/err")" -eq 1 ] || bad="$bad; not one line on stderr"
    grep -qF -e "$hint" "$tmp/err" || bad="$bad; no '$hint' in: $(cat "$tmp/err")"
    verdict "gradcam $*" "$bad"
}

prints() { # what stdout must hold, arguments
    hint=$1
    shift
    run "$@"
    bad=
    [ "$status" = 0 ] || bad="status $status: $(cat "$tmp/err")"
    [ -z "$hint" ] || grep -qF -e "$hint" "$tmp/out" || bad="$bad; no '$hint' on stdout"
    verdict "gradcam $*" "$bad"
}

# What a beginner gets wrong.
refuses 2 'explain|predict|info|run|bench'
refuses 2 "'explode'" explode
refuses 2 'MODEL' explain
refuses 2 '--help' explain $model $scene --mehtod cam
refuses 2 'magic' explain $model $scene --method magic
refuses 2 'wants an argument' explain $model $scene --target
refuses 2 'IMAGE or --input' explain $model
refuses 1 'missing.onnx' info missing.onnx
refuses 1 'not an ONNX model' info $scene
refuses 1 'this machine has' predict $model $scene --kernels mmx
prints 'score' explain $model $scene --preprocess zero-one --output "$tmp/plain.png" --kernels plain
refuses 1 'missing.jpg' explain $model missing.jpg
refuses 1 'PNM' explain $model Makefile
refuses 1 'Is a directory' explain $model docs
refuses 1 'Is a directory' explain $model $scene --output docs
refuses 1 'Is a directory' explain $model $scene --raw docs --output "$tmp/raw.png"
refuses 1 'No such file' explain $model $scene --output "$tmp/nowhere/x.png"
refuses 1 '--labels' explain $model $scene --target Trouser
refuses 1 'no such label' explain $model $scene --target Umbrella --labels docs/demo/labels.txt
refuses 1 'classes 0 to 9' explain $model $scene --target 10
refuses 1 'gradcam info' explain $model $scene --layer nowhere
refuses 1 '--input' run $model --out "$tmp/o"
refuses 1 '[?, 3, 112, 112]' run $model --out "$tmp/o" --fill 1 --shape image=1x3x64x64
refuses 1 '--out' run $model --fill 1 --out /dev/null/x
refuses 1 'gradcam info' run $model --fill 1 --out "$tmp/o" --value nowhere
refuses 1 '0 to 9' run $model --fill 1 --out "$tmp/o" --target logits:99999 --grad image
refuses 2 'lots' run $model --fill lots --out "$tmp/o"
refuses 1 'gradcam' explain $model $scene --method cam --layer relu6

# What works.
prints 'usage: gradcam' --help
prints 'usage: gradcam explain' explain --help
prints 'Trouser' predict $model $scene --preprocess zero-one --labels docs/demo/labels.txt
prints 'class   1 Trouser' explain $model $scene --preprocess zero-one --labels docs/demo/labels.txt \
    --target trouser --method all --output "$tmp/all.png"
verdict 'a picture is a PNG' "$(head -c 4 "$tmp/all.png" | grep -q PNG || echo no)"
prints '' run $model --fill 0.5 --out "$tmp/o" --target logits:3 --grad image --value relu7
prints '' run $model --fill 0.5 --out "$tmp/inner" --target relu7:3 --grad image
refuses 1 'gradcam info' run $model --fill 0.5 --out "$tmp/inner" --target nowhere:3 --grad image
verdict 'three arrays and their index' "$([ -s "$tmp/o/2.npy" ] && grep -q relu7 "$tmp/o/index.json" || echo missing)"
prints 'median_ms' bench $model --seconds 0.01 --json
prints '*  Relu                 relu7 [1, 64, 14, 14]' info $model
prints '"parameters": 140974' info $model --json
prints '"name": "relu7", "shape": [5, 64, 14, 14], "dtype": "f32", "default": true' info $model --json \
    --shape image=5x3x112x112
refuses 1 'takes the shape' info $model --shape image=1x3x9x9

printf 'shirt\nboot\n' >"$tmp/two.txt"
prints 'shirt' predict $model $scene --labels "$tmp/two.txt" --top 10
verdict 'labels that are too few are told' "$(grep -q 'names 2 classes, the network has 10' "$tmp/err" || cat "$tmp/err")"
prints 'class   1 boot' explain $model $scene --labels "$tmp/two.txt" --target boot --output "$tmp/two.png"
verdict 'and when explaining' "$(grep -q 'names 2 classes, the network has 10' "$tmp/err" || cat "$tmp/err")"

# Formats that this build may lack are named, with what to do.
printf '\377\330\377\340' >"$tmp/x.jpg"
printf '\211PNG\r\n\032\n' >"$tmp/x.png"
refuses 1 JPEG explain $model "$tmp/x.jpg"
refuses 1 PNG explain $model "$tmp/x.png"

# The examples, written from the header alone.
"$examples/peak" $model $scene >"$tmp/peak" 2>&1
verdict 'peak: on the trousers' "$(sed -n 's/^class 1,.* x \([0-9]*\), y \([0-9]*\)$/\1 \2/p' "$tmp/peak" | {
    read -r x y && [ "$x" -ge 18 ] && [ "$x" -lt 37 ] && [ "$y" -ge 15 ] && [ "$y" -lt 61 ]
} || cat "$tmp/peak")"
"$examples/peak" $model Makefile >"$tmp/peak" 2>&1
verdict 'peak: refuses what is no PPM' "$(grep -q 'GRADCAM_E_IO: Makefile' "$tmp/peak" || cat "$tmp/peak")"
brightest() { # a picture of 112 x 112 -> x y
    tail -c 12544 "$1" | od -An -v -tu1 |
        awk '{ for (i = 1; i <= NF; i++) { if ($i > most) { most = $i; at = n } n++ } } END { print at % 112, int(at / 112) }'
}
"$examples/perturb" $model $scene relu7 "$tmp/occlusion.pgm" "$tmp/ablation.pgm" >"$tmp/perturb" 2>&1
for map in occlusion ablation; do
    verdict "perturb: $map, on the trousers" "$(brightest "$tmp/$map.pgm" 2>&1 | {
        read -r x y && [ "$x" -ge 18 ] && [ "$x" -lt 37 ] && [ "$y" -ge 15 ] && [ "$y" -lt 61 ]
    } || brightest "$tmp/$map.pgm" 2>&1 | cat "$tmp/perturb" -)"
done
"$examples/perturb" $model $scene nobody "$tmp/occlusion.pgm" "$tmp/ablation.pgm" >"$tmp/perturb" 2>&1
verdict 'perturb: says which layer there is not' "$(grep -q '"nobody"' "$tmp/perturb" || cat "$tmp/perturb")"
if [ -x "$examples/hooks" ]; then
    "$examples/hooks" >"$tmp/hooks" 2>&1
    verdict 'hooks: 8 + 4 + 8 marked rows' "$([ "$(grep -c '^\.\.\.#\.\.\.\.$' "$tmp/hooks")" = 20 ] || cat "$tmp/hooks")"
    verdict 'hooks: the gradient' "$(grep -q ' 0.015625,' "$tmp/hooks" || cat "$tmp/hooks")"
else
    skipped=$((skipped + 2))
    echo 'skipped: the example in C++ wants a C++ compiler'
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
