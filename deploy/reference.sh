#!/usr/bin/env bash
# Recomputes steps of real runs with PyTorch and compares every tensor (tests/reference).
#
#   deploy/reference.sh              with a PyTorch of its own in .venv-reference/: 2.3 GB to download at first
#   deploy/reference.sh --if-found   with a PyTorch that is there already; otherwise it says so and does nothing
#   deploy/reference.sh --bench-step ARGUMENTS   times a step beside PyTorch's instead (tests/reference/bench_step.py)
#
# LOCKSTEP_REFERENCE_PYTHON names a Python with torch, torchvision and safetensors to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$PWD/.venv-reference
REQUIREMENTS=tests/reference/requirements.txt

main() {
    local python
    if [ "${1:-}" = --if-found ]; then
        if ! python=$(first_able "$(command -v python3)"); then
            echo "left out: no Python with PyTorch, torchvision and safetensors here; 'make reference' sets one up"
            return
        fi
    elif ! python=$(first_able); then
        set_up
        python=$VENV/bin/python
    fi
    if [ "${1:-}" = --bench-step ]; then
        exec "$python" tests/reference/bench_step.py --worker "${CARGO_TARGET_DIR:-target}/release/worker" "${@:2}"
    fi
    echo "with PyTorch of $python"
    cargo build --package coordinator --package worker --bins --features worker/failpoints
    LOCKSTEP_REFERENCE_PYTHON=$python cargo test --package lockstep-tests --test reference -- \
        --ignored --nocapture --test-threads=1
}

# The user's choice, ours, or one of the arguments: whichever has all that is needed.
first_able() {
    local python
    for python in "${LOCKSTEP_REFERENCE_PYTHON:-}" "$VENV/bin/python" "$@"; do
        if [ -x "$python" ] && "$python" -c 'import torch, torchvision, safetensors' &>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

set_up() {
    python3 -m venv --clear "$VENV" || {
        echo "error: no virtual environment; 'apt-get install python3-venv' (Python 3.11 or newer)" >&2
        return 1
    }
    "$VENV/bin/pip" install --disable-pip-version-check --no-deps --requirement "$REQUIREMENTS"
}

main "$@"
