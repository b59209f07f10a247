"""Makes `src/mu_llama/encoders/musicnn_weights/musicnn.safetensors` from the wheel of musicnn 0.1.0.

Run from the root of the checkout: `python -m recipes.musicnn.convert [--wheel PATH]`. Needs numpy and
safetensors, and neither TensorFlow nor librosa.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from recipes.musicnn.tf_checkpoint import read_float_tensors

Tensors = dict[str, npt.NDArray[np.float32]]

WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
OUT = Path(__file__).parents[2] / "src/mu_llama/encoders/musicnn_weights/musicnn.safetensors"
VARIANTS = ("msd", "mtt")
# layer here: (TensorFlow layer that holds kernel and bias, number of its batch normalisation)
LAYERS: dict[str, tuple[str | None, int | None]] = {
    "input": (None, 0),
    "timbral_38": ("conv2d", 1),
    "timbral_67": ("conv2d_1", 2),
    "temporal_128": ("conv2d_2", 3),
    "temporal_64": ("conv2d_3", 4),
    "temporal_32": ("conv2d_4", 5),
    "midend_1": ("conv2d_5", 6),
    "midend_2": ("conv2d_6", 7),
    "midend_3": ("conv2d_7", 8),
    "pooled": (None, 9),
    "penultimate": ("dense", 10),
    "tags": ("dense_1", None),
}
NORM_LEAVES = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def rename(source: Tensors) -> Tensors:
    """Give one variant's tensors this project's names and put filters first; optimiser state is dropped.

    Args:
        source: tensors by their TensorFlow names.

    Returns:
        Tensors by `<layer>.<leaf>`; kernels are (filters, frames, bands or channels) or (outputs, inputs).

    Raises:
        ValueError: if a tensor that isn't optimiser state is left over.
    """
    left = {name for name in source if "Adam" not in name and not name.endswith("_power")}
    renamed = {}
    for layer, (weights, norm) in LAYERS.items():
        names = {}
        if weights is not None:
            names |= {"kernel": f"{weights}/kernel", "bias": f"{weights}/bias"}
        if norm is not None:
            scope = "batch_normalization" + (f"_{norm}" if norm else "")
            names |= {leaf: f"{scope}/{tf_leaf}" for leaf, tf_leaf in NORM_LEAVES.items()}
        for leaf, name in names.items():
            left.remove(name)
            tensor = source[name]
            if leaf == "kernel" and tensor.ndim == 4:
                tensor = tensor[:, :, 0]  # one input channel: (frames, bands, filters)
            renamed[f"{layer}.{leaf}"] = np.ascontiguousarray(np.moveaxis(tensor, -1, 0))
    if left:
        raise ValueError(f"tensors without a place: {sorted(left)}")
    return renamed


def slaney_mel_filters(*, rate_hz: int = 16000, fft_size: int = 512, num_bands: int = 96) -> npt.NDArray[np.float32]:
    """Compute the mel filter bank that `librosa.filters.mel` gives by default.

    Triangles between points equally spaced on Slaney's mel scale (linear below 1 kHz, logarithmic above;
    Auditory Toolbox, 1998) from 0 Hz to half the rate, each scaled to unit area in Hz.

    Returns:
        Filters of shape (num_bands, fft_size // 2 + 1).
    """
    hz_per_mel, corner_hz, log_step = 200 / 3, 1000.0, np.log(6.4) / 27
    corner_mel = corner_hz / hz_per_mel
    top_mel = corner_mel + np.log(rate_hz / 2 / corner_hz) / log_step
    mels = np.linspace(0, top_mel, num_bands + 2)
    edges_hz = np.where(mels < corner_mel, mels * hz_per_mel, corner_hz * np.exp(log_step * (mels - corner_mel)))
    bins_hz = np.linspace(0, rate_hz / 2, fft_size // 2 + 1)
    widths_hz = np.diff(edges_hz)[:, None]
    distance = edges_hz[:, None] - bins_hz
    rising, falling = -distance[:-2] / widths_hz[:-1], distance[2:] / widths_hz[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges_hz[2:] - edges_hz[:-2]))[:, None]).astype(np.float32)


def tag_names(configuration: str) -> dict[str, list[str]]:
    """Read the tag lists out of the source text of the wheel's configuration.py, without running it."""
    wanted = {f"{variant.upper()}_LABELS": variant for variant in VARIANTS}
    return {
        wanted[statement.targets[0].id]: ast.literal_eval(statement.value)
        for statement in ast.parse(configuration).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in wanted
    }


def convert(wheel: Path, out: Path) -> None:
    """Convert the weights of `wheel` to the safetensors file `out`."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel} has SHA-256 {digest}; expected {WHEEL_SHA256}: fetch musicnn 0.1.0 again")
    tensors: Tensors = {"mel_filters": slaney_mel_filters()}
    with zipfile.ZipFile(wheel) as archive:
        tags = tag_names(archive.read("musicnn/configuration.py").decode())
        for variant in VARIANTS:
            folder = f"musicnn/{variant.upper()}_musicnn"
            index, data = archive.read(f"{folder}/.index"), archive.read(f"{folder}/.data-00000-of-00001")
            renamed = rename(read_float_tensors(index, data))
            tensors |= {f"{variant}.{name}": tensor for name, tensor in renamed.items()}
    about = {
        "tags": tags,
        "licence": "ISC, see LICENSE.musicnn",
        "source": "PyPI musicnn 0.1.0, MSD_musicnn and MTT_musicnn, by recipes/musicnn/convert.py",
        "source_sha256": WHEEL_SHA256,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    # one key only: safetensors writes several in random order, and the file should be reproducible
    save_file(tensors, out, {"about": json.dumps(about)})
    print(f"{out}: {len(tensors)} tensors, {out.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Convert a given wheel, or one fetched with pip into a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="the wheel of musicnn 0.1.0; default: pip download it")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write; default: %(default)s")
    options = parser.parse_args()
    if options.wheel is not None:
        convert(options.wheel, options.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, "musicnn==0.1.0"]
        subprocess.run(pip, check=True)
        convert(next(Path(folder).glob("*.whl")), options.out)


if __name__ == "__main__":
    main()
