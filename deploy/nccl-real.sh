#!/usr/bin/env bash
# Tests against NVIDIA's libnccl on a machine without a GPU: what it can do there, and how it says no to the rest.
#
#   deploy/nccl-real.sh      takes it from .libtorch/cuda, or else from its wheel into .venv-nccl/: 0.2 GB
#
# LOCKSTEP_NCCL_LIBRARY names a libnccl.so.2 to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$PWD/.venv-nccl

main() {
    local library=${LOCKSTEP_NCCL_LIBRARY:-$PWD/.libtorch/cuda/lib/libnccl.so.2}
    [[ -e $library ]] || library=$(wheel)
    echo "testing with $library"
    LOCKSTEP_NCCL_LIBRARY=$library cargo test --package lockstep-collective --features nccl --lib -- --ignored nccl::real
}

# The library of the wheel that the libtorch for CUDA brings too, so there is one pin and one hash.
wheel() {
    local found
    if ! found=$(compgen -G "$VENV/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2"); then
        python3 -m venv --clear "$VENV" || {
            echo "error: no virtual environment; 'apt-get install python3-venv'" >&2
            return 1
        }
        sed -n '/^nvidia-nccl-cu13==/,/[^\\]$/p' deploy/libtorch/cuda.txt >"$VENV/requirements.txt"
        "$VENV/bin/pip" install --disable-pip-version-check --no-deps --require-hashes -r "$VENV/requirements.txt" >&2
        found=$(compgen -G "$VENV/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2")
    fi
    echo "$found"
}

main
