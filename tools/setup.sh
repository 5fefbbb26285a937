#!/usr/bin/env bash
# Make the virtual environment .venv with everything that `make quickstart` and `make test` need.
# Does nothing when it was finished for the same pyproject.toml and constraints.txt before.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.fastssd-setup
wanted=$(cat pyproject.toml setup.py fastssd/native/src/* constraints.txt tools/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "setup: no Python of version 3.11 or newer found; install one or set PYTHON=/path/to/python" >&2
    exit 2
fi

# FFCV is built from source against these; the native kernels against libjpeg-turbo.
system_packages="libopencv-dev libturbojpeg0-dev libjpeg62-turbo-dev pkg-config g++"
extras=dali,hf,timm,bench,dev
have_ffcv_libraries() { command -v g++ >/dev/null && pkg-config --exists opencv4 libturbojpeg 2>/dev/null; }
if ! have_ffcv_libraries && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing system packages: $system_packages"
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $system_packages; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
    fi
    rm -f "$log"
fi
if have_ffcv_libraries; then
    extras=ffcv,$extras
else
    echo "setup: FFCV is left out; to have it, install these and run again: $system_packages" >&2
fi

if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv --clear .venv
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT="$PWD/constraints.txt"
install=".venv/bin/python -m pip install --quiet"
echo "setup: installing Python packages into .venv (a few minutes, several GB: torch brings its CUDA libraries)"
# torch and torchvision first and as a pair, so that nothing else chooses another torch
$install torch torchvision
$install --editable ".[$extras]"
.venv/bin/python -c 'import torch, torchvision, accelerate, fastssd'
.venv/bin/python -c '
from fastssd.native.library import INSTALL, problem
if problem():
    print(f"setup: {problem()}: images are decoded more slowly; {INSTALL}")
'
echo "$wanted" >"$stamp"
echo "setup: done"
