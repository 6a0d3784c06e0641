#!/usr/bin/env bash
# Recomputes steps of real runs and views of images with PyTorch and compares every tensor (tests/reference).
#
#   deploy/reference.sh              with a PyTorch of its own in .venv-reference/: 2.3 GB to download at first
#   deploy/reference.sh --if-found   with a PyTorch that is there already; otherwise it says so and does nothing
#   deploy/reference.sh --bench-step ARGUMENTS   times a step beside PyTorch's instead (tests/reference/bench_step.py)
#   deploy/reference.sh --bench-data ARGUMENTS   times the input pipeline beside others (tests/reference/bench_data.py)
#
# LOCKSTEP_REFERENCE_PYTHON names a Python with torch, torchvision and safetensors to use instead. LOCKSTEP_PHOTOS names
# a folder of JPEGs whose views are compared; without it images are made.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$PWD/.venv-reference
REQUIREMENTS=(tests/reference/requirements.txt)
MODULES=(torch torchvision safetensors)

main() {
    local python worker=${CARGO_TARGET_DIR:-target}/release/worker
    if [ "${1:-}" = --bench-data ]; then
        REQUIREMENTS+=(tests/reference/requirements-peers.txt)
        MODULES+=(albumentations cv2)
    fi
    if [ "${1:-}" = --if-found ]; then
        if ! python=$(first_able "$(command -v python3)"); then
            echo "left out: no Python with PyTorch, torchvision and safetensors here; 'make reference' sets one up"
            return
        fi
    elif ! python=$(first_able); then
        set_up
        python=$VENV/bin/python
    fi
    case "${1:-}" in
        --bench-step) exec "$python" tests/reference/bench_step.py --worker "$worker" "${@:2}" ;;
        --bench-data) exec "$python" tests/reference/bench_data.py --worker "$worker" "${@:2}" ;;
    esac
    echo "with PyTorch of $python"
    cargo build --package coordinator --package worker --bins --features worker/failpoints
    LOCKSTEP_REFERENCE_PYTHON=$python cargo test --package lockstep-tests --test reference -- \
        --ignored --nocapture --test-threads=1
    if "$python" -c 'import webdataset' &>/dev/null; then
        LOCKSTEP_WEBDATASET_PYTHON=$python cargo test --package lockstep-data --test webdataset -- --ignored
    else
        echo "left out: shards read by the webdataset package, which $python does not have"
    fi
}

# The user's choice, ours, or one of the arguments: whichever has all that is needed.
first_able() {
    local python
    for python in "${LOCKSTEP_REFERENCE_PYTHON:-}" "$VENV/bin/python" "$@"; do
        if [ -x "$python" ] && "$python" -c "import $(IFS=,; echo "${MODULES[*]}")" &>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

set_up() {
    python3 -m venv "$VENV" || {
        echo "error: no virtual environment; 'apt-get install python3-venv' (Python 3.11 or newer)" >&2
        return 1
    }
    "$VENV/bin/pip" install --disable-pip-version-check --no-deps "${REQUIREMENTS[@]/#/--requirement=}"
}

main "$@"
