#!/bin/sh
# Install torch into a virtual environment: sh scripts/install_torch.sh PYTHON cpu|REQUIREMENT
#
# On Linux the default build of torch brings several GB for NVIDIA GPUs, so "cpu" asks for the CPU build: first where
# pip is already configured to look, then in PyTorch's own index. Elsewhere the default build is the CPU one.
set -eu
python=$1 wanted=$2
version=$(sed -n 's/^torch==//p' constraints.txt)
pip="$python -m pip install --quiet --disable-pip-version-check"

"$python" -c "import torch" 2>/dev/null && exit 0
if [ "$wanted" != cpu ]; then
    exec $pip "$wanted"
fi
if [ "$(uname -s)" != Linux ]; then
    exec $pip "torch==$version"
fi
$pip "torch==$version+cpu" 2>/dev/null || $pip --index-url https://download.pytorch.org/whl/cpu "torch==$version"
