#!/usr/bin/env bash
# Everything that must hold before a change goes in, cheapest first. `make test` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    step "format" cargo fmt --all --check
    step "lints" cargo clippy --workspace --all-targets -- -D warnings
    step "lints with NCCL" cargo clippy --package worker --all-targets --features nccl -- -D warnings
    step "crates that must build without libtorch" without_libtorch
    step "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items
    step "examples in the documentation" cargo test --workspace --doc
    # The process tests start these; testing a library does not build them. Chaos needs faults on order.
    step "programs" cargo build --workspace --bins --features worker/failpoints,worker/nccl
    step "steps recomputed by PyTorch" deploy/reference.sh --if-found
    # Last, so that the summary of the tests closes the output.
    step "tests" tests
    printf '\nall checks passed in %s s\n' "$SECONDS"
}

step() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" </dev/null || { echo "error: failed at '$name': $*" >&2; exit 1; }
}

without_libtorch() {
    local crate tree
    for crate in lockstep-proto lockstep-core lockstep-jpeg lockstep-data lockstep-store coordinator; do
        tree=$(cargo tree --edges normal,build --prefix none --package "$crate") || return
        if grep '^torch-sys ' <<<"$tree"; then
            echo "$crate must not depend on libtorch; see 'cargo tree --package $crate --invert torch-sys'" >&2
            return 1
        fi
    done
}

tests() {
    if cargo nextest --version &>/dev/null; then
        cargo nextest run --workspace
    else
        echo "(cargo-nextest is not installed: using cargo test)"
        cargo test --workspace --tests --exclude lockstep-tests &&
            cargo test --package lockstep-tests --tests -- --test-threads=1
    fi
}

main
