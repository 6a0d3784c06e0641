#!/usr/bin/env bash
# Tests on GPU 0 of this machine: steps against the CPU's, runs with NCCL, a killed rank; then a step beside PyTorch's.
#
#   deploy/test-gpu.sh              everything; fetches libtorch for CUDA (2.5 GB) and a PyTorch (2.3 GB)
#   deploy/test-gpu.sh --no-bench   without the last part, and without PyTorch
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    deploy/setup-libtorch.sh cuda
    # f32 means f32: by default the GPU's convolutions use TF32, with 10 bits of precision.
    export NVIDIA_TF32_OVERRIDE=0
    cargo test --package lockstep-nn --test gpu -- --ignored --test-threads=1
    cargo build --package coordinator --package worker --bins --features worker/nccl,worker/failpoints
    cargo test --package lockstep-tests --test gpu -- --ignored --test-threads=1
    if [ "${1:-}" != --no-bench ]; then
        unset NVIDIA_TF32_OVERRIDE
        cargo build --release --package worker --bins --features nccl
        deploy/reference.sh --bench-step --device cuda:0 --batch 64 --steps 20
    fi
}

main "$@"
