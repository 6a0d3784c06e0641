#!/usr/bin/env bash
# Puts libtorch 2.13.0 into .libtorch/, where cargo finds it (.cargo/config.toml).
#
#   deploy/setup-libtorch.sh         keeps the build that is there; the CPU one at first
#   deploy/setup-libtorch.sh cpu     the CPU build:  0.54 GB to download, 0.5 GB on disk
#   deploy/setup-libtorch.sh cuda    the CUDA build: 2.5 GB to download, 3.6 GB on disk
#
# KEEP_WHEELS=1 keeps the downloads. A libtorch of your own: set LIBTORCH, and this only checks its version.
set -euo pipefail

if ! command -v python3 >/dev/null; then
    echo "error: no python3 found; it fetches and unpacks libtorch: 'apt-get install python3 python3-pip'" >&2
    exit 1
fi
exec python3 "$(dirname "$0")/libtorch/setup.py" "$@"
