#!/usr/bin/env bash
# Trains variants of preset demo on the demo's images, one after the other, and prints their curves side by side.
#
#   deploy/compare.sh STEPS NAME="key=value …" NAME="…" …
#
#   deploy/compare.sh 200 f32= bf16=model.dtype=bf16
#
# One coordinator and one worker each, one thread. Needs what 'make demo' leaves: the programs and .data/. Leaves
# compare-out/NAME.jsonl (one line per step) and compare-out/NAME.log.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BIN=${CARGO_TARGET_DIR:-target}/release OUT=compare-out DATA=.data/train

main() {
    (($# >= 2)) || fail "usage: compare.sh STEPS NAME=\"key=value …\" …"
    [[ -x $BIN/coordinator && -x $BIN/worker && -f $DATA/manifest.json ]] || fail "run 'make demo' first"
    local steps=$1 variant
    shift
    mkdir -p $OUT
    for variant in "$@"; do
        train "$steps" "${variant%%=*}" "${variant#*=}"
    done
    table "${@%%=*}"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

train() {
    local steps=$1 name=$2 sets=(--set "schedule.steps=$1" --set knn.every_steps=0) set coordinator
    for set in $3; do
        sets+=(--set "$set")
    done
    echo "training $name" >&2
    rm -f "$OUT/$name.jsonl" "$OUT/port"
    "$BIN/coordinator" --world 1 --preset demo "${sets[@]}" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 \
        --port-file $OUT/port --reports "$OUT/$name.jsonl" &>"$OUT/$name.log" &
    coordinator=$!
    trap 'kill "$coordinator" 2>/dev/null || true' EXIT
    until [[ -s $OUT/port ]]; do
        kill -0 "$coordinator" 2>/dev/null || { cat "$OUT/$name.log" >&2; fail "no coordinator for $name"; }
        sleep 0.1
    done
    "$BIN/worker" --coordinator "$(<$OUT/port)" --data $DATA --threads 1 &>>"$OUT/$name.log" ||
        { tail "$OUT/$name.log" >&2; fail "the worker of $name failed"; }
    wait "$coordinator"
    trap - EXIT
}

# A row for each figure of each variant: means over the steps up to the one named. kNN only where a variant asks for it
# (knn.every_steps), the newest one.
table() {
    python3 - "$OUT" "$@" <<'PYTHON'
import json, sys

FIGURES = {
    "loss": ("loss", "{:.3f}"), "z-std": ("z_std", "{:.4f}"),
    "probe": ("probe_accuracy", "{:.0%}"), "kNN": ("knn_accuracy", "{:.0%}"),
}

out, *names = sys.argv[1:]
curves = {name: [json.loads(line) for line in open(f"{out}/{name}.jsonl")] for name in names}
steps = min(len(curve) for curve in curves.values())
stretch = max(steps // 10, 1)
ends = range(stretch, steps + 1, stretch)
print("| steps |", " | ".join(map(str, ends)), "|")
print("|---" * (1 + len(ends)) + "|")
for figure, (key, form) in FIGURES.items():
    for name, curve in curves.items():
        seen = [[step[key] for step in curve[end - stretch:end] if step[key] is not None] for end in ends]
        if any(seen):
            part = [values[-1:] if key == "knn_accuracy" else values for values in seen]
            cells = [form.format(sum(values) / len(values)) if values else "" for values in part]
            print(f"| {name}: {figure} |", " | ".join(cells), "|")
PYTHON
}

main "$@"
