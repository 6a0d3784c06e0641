# Any target can be the first command in a fresh clone: each one sets up what it needs.

.DEFAULT_GOAL := help
.PHONY: help setup build test chaos reference interop test-nccl-real test-gpu bench-step bench-data demo demo-long lint fmt clean-demo

# Which libtorch: cpu or cuda. Empty keeps the one that is set up; the CPU one at first.
TORCH ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Fetch libtorch (TORCH=cpu, 0.5 GB; TORCH=cuda, 2.5 GB)
	@deploy/setup-libtorch.sh $(TORCH)

build: setup ## Build the coordinator and the worker, optimized
	cargo build --release --workspace --bins

test: setup ## Check everything: format, lints, docs, all tests (what CI runs)
	@deploy/check.sh

chaos: setup ## Attack a run with random faults and prove that nothing is lost (FAULTS=200 SEED=1; some seconds each)
	cargo build --workspace --bins --features worker/failpoints,worker/nccl
	cargo run --package lockstep-tests --bin chaos -- $(or $(FAULTS),200) $(or $(SEED),1)

reference: setup ## Recompute steps of real runs, and views, with PyTorch (fetches it where there is none: 2.3 GB)
	@deploy/reference.sh

interop: setup ## Test against an S3 server (moto) and the webdataset package (fetches them: 0.4 GB on disk)
	@deploy/interop.sh

test-nccl-real: ## Test against NVIDIA's libnccl, which needs no GPU for that (fetches it: 0.2 GB)
	@deploy/nccl-real.sh

test-gpu: ## Test on GPU 0 of this machine, and time a step beside PyTorch's there (fetches both: 5 GB)
	@deploy/test-gpu.sh

bench-step: build ## Time a step beside PyTorch's, in turn (BENCH="--arch resnet18 --size 96 --batch 32")
	@deploy/reference.sh --bench-step $(BENCH)

bench-data: build ## Time the input pipeline beside others, in turn (PHOTOS=folder of .jpg files)
	@deploy/reference.sh --bench-data $(if $(PHOTOS),--images "$(abspath $(PHOTOS))") $(BENCH)

demo: build ## Train on real images for a few minutes; then see demo-out/report.html
	deploy/demo.sh --preset demo --out demo-out

demo-long: build ## The same for up to an hour, into demo-long-out
	deploy/demo.sh --preset demo-long --out demo-long-out

lint: setup ## Run clippy as CI does
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format all code
	cargo fmt --all

clean-demo: ## Delete what the demos wrote
	rm -rf demo-out demo-long-out
