#!/usr/bin/env bash
# Tests against programs of others: an S3 server (moto), and the webdataset package.
#
#   deploy/interop.sh      with a Python environment of its own in .venv-interop/: 0.4 GB on disk
#
# LOCKSTEP_INTEROP_PYTHON names a Python with moto[server] and webdataset to use instead.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$PWD/.venv-interop

main() {
    local python=${LOCKSTEP_INTEROP_PYTHON:-$VENV/bin/python}
    if ! "$python" -c 'import boto3, moto.server, webdataset' &>/dev/null; then
        python3 -m venv --clear "$VENV" || {
            echo "error: no virtual environment; 'apt-get install python3-venv' (Python 3.11 or newer)" >&2
            return 1
        }
        "$VENV/bin/pip" install --disable-pip-version-check 'moto[server]==5.2.5' webdataset==1.0.2
        python=$VENV/bin/python
    fi
    cargo build --package coordinator --package worker --bins
    LOCKSTEP_INTEROP_PYTHON=$python cargo test --package lockstep-tests --test object_stores -- --ignored
    LOCKSTEP_WEBDATASET_PYTHON=$python cargo test --package lockstep-data --test webdataset -- --ignored
}

main
