#!/usr/bin/env bash
# Check everything that runs on a GPU, in under 8 minutes, without a network: scripts/gpu_check.sh [--json FILE] [--tiny]
#
# Needs one NVIDIA GPU and a Python (PYTHON=..., else .venv, else python3) with torch, transformers and what pyproject.toml
# names; this package itself need not be installed. The options are those of `python -m benchmarks.gpu_check`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
export PYTHONPATH="$root:$root/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
exec "$python" -m benchmarks.gpu_check "$@"
