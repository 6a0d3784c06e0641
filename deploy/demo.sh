#!/usr/bin/env bash
# Trains on real images with one coordinator and two workers on this machine, then measures what was learned.
#
#   deploy/demo.sh --preset demo|demo-long --out DIR [--seed N]
#
# Leaves in DIR: report.html, steps.jsonl, checkpoints/, state/, the processes' logs. A run that is
# already there is deleted. Needs the release binaries ('make demo' builds them).
# DEMO_SETS="key=value …" changes the run's configuration.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BIN=${CARGO_TARGET_DIR:-target}/release
readonly DATA=.data
readonly CLASSES="T-shirt,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
readonly LICENSE="Fashion-MNIST, © 2017 Zalando SE, MIT licence, github.com/zalandoresearch/fashion-mnist"
pids=()

main() {
    arguments "$@"
    trap end_processes EXIT
    trap 'exit 130' INT TERM
    pack_images
    fresh_folder
    train
    measure
}

arguments() {
    preset=demo out="" seed=0
    while (($#)); do
        case $1 in
            --preset) preset=${2:?--preset needs a name} ;;
            --out) out=${2:?--out needs a folder} ;;
            --seed) seed=${2:?--seed needs a number} ;;
            *) fail "unknown argument $1; usage: demo.sh --preset demo|demo-long --out DIR [--seed N]" ;;
        esac
        shift 2
    done
    [[ -n $out ]] || fail "--out DIR is missing"
    [[ -x $BIN/coordinator && -x $BIN/worker ]] || fail "no programs in $BIN; build them with 'make build'"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

# Both halves as shards in .data/, once.
pack_images() {
    local split
    for split in train test; do
        [[ -f $DATA/$split/manifest.json ]] && continue
        deploy/fashion-mnist.sh $DATA/fashion-mnist
        "$BIN/worker" pack --input $DATA/fashion-mnist --split $split --output $DATA/$split
    done
}

# Only what a run of this script leaves is deleted.
fresh_folder() {
    if [[ -e $out/steps.jsonl || -e $out/checkpoints || -e $out/state ]]; then
        echo "deleting the previous run in $out"
    fi
    mkdir -p "$out"
    rm -rf "$out/checkpoints" "$out/state"
    rm -f "$out"/{steps.jsonl,port,report.html,coordinator.log,worker-1.log,worker-2.log}
}

train() {
    local sets=(--set "run.seed=$seed") set number
    for set in ${DEMO_SETS:-}; do
        sets+=(--set "$set")
    done
    local coordinator=("$BIN/coordinator" --world 2 --preset "$preset" "${sets[@]}"
        --listen 127.0.0.1:0 --port-file "$out/port" --metrics-listen 127.0.0.1:0
        --reports "$out/steps.jsonl" --state-dir "$out/state")
    # The live line needs the terminal itself; elsewhere its plain lines are kept too.
    if [[ -t 2 ]]; then
        "${coordinator[@]}" &
    else
        "${coordinator[@]}" 2> >(tee "$out/coordinator.log" >&2) &
    fi
    pids+=($!)
    wait_for_port
    for number in 1 2; do
        "$BIN/worker" --coordinator "$(<"$out/port")" --data $DATA/train \
            --checkpoints "$out/checkpoints" --threads 1 >"$out/worker-$number.log" 2>&1 &
        pids+=($!)
    done
    wait_for_all
}

wait_for_port() {
    local tries
    for tries in {1..300}; do
        [[ -s $out/port ]] && return
        kill -0 "${pids[0]}" 2>/dev/null || break
        sleep 0.1
    done
    failed "the coordinator did not open its port, tried $tries times"
}

# The first process that fails ends the demo; the others would wait for it.
wait_for_all() {
    local left=("${pids[@]}") ended status index
    while ((${#left[@]})); do
        status=0
        wait -n -p ended "${left[@]}" || status=$?
        ((status == 0)) || failed "process $ended ended with exit code $status"
        for index in "${!left[@]}"; do
            [[ ${left[index]} != "$ended" ]] || unset "left[index]"
        done
    done
}

failed() {
    local log
    for log in "$out"/coordinator.log "$out"/worker-{1,2}.log; do
        [[ -s $log ]] || continue
        echo "--- the end of $log" >&2
        tail -n 20 "$log" >&2
    done
    fail "$1"
}

measure() {
    echo "measuring what was learned, on 60,000 training and 10,000 test images"
    "$BIN/worker" report --steps "$out/steps.jsonl" --data $DATA/train --queries $DATA/test \
        --checkpoints "$out/checkpoints" --out "$out/report.html" --class-names "$CLASSES" --license "$LICENSE" \
        --title "What two workers learned without labels"
    echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s in all"
}

# Whatever ends this script ends its processes, and no others.
end_processes() {
    local pid
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    wait
}

main "$@"
