"""Times the MusiCNN encoder against plain float32 torch, from audio file to features.

Run from the root of the checkout: `python benchmarks/musicnn.py [--threads N...] [--audio PATH...]`. Prints and
writes benchmarks/results/musicnn.json. Without audio, five minutes of synthesised music are used. The plain
forward below is also the slow oracle of the fast one.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F

from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.musicnn.encoder import (
    MusicnnEncoder,
    MusicnnWeights,
    normalised,
    patch_plan,
    read_musicnn_weights,
)
from mu_llama.encoders.musicnn.front_end import LogMel
from mu_llama.encoders.musicnn.network import FRONT_END, MIDEND, PATCH_FRAMES

ROOT = Path(__file__).parents[1]
WINDOW_S = 60
Tensors = Mapping[str, torch.Tensor]


def windows(path: Path) -> Iterator[Waveform]:
    """Decode a file and yield its windows of up to a minute at 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(1), rate_hz, 16000)
    for start in range(0, len(mono) - 1600, WINDOW_S * 16000):
        yield Waveform(np.ascontiguousarray(mono[start : start + WINDOW_S * 16000]), 16000)


def plain_tags(tensors: Tensors, patches: torch.Tensor) -> torch.Tensor:
    """Run one variant layer by layer, as the paper describes it, over patches (P, 187, 96)."""

    def norm(layer: str, values: torch.Tensor) -> torch.Tensor:
        statistics_of = (tensors[f"{layer}.{leaf}"] for leaf in ("mean", "variance", "gamma", "beta"))
        return F.batch_norm(values, *statistics_of, eps=1e-3)

    normed = norm("input", patches[:, None])
    channels = []
    for layer in FRONT_END:
        kernel = tensors[f"{layer}.kernel"][:, None]
        padded = F.pad(normed, (0, 0, (kernel.shape[2] - 1) // 2, kernel.shape[2] // 2))
        convolved = F.relu(F.conv2d(padded, kernel, tensors[f"{layer}.bias"]))
        channels.append(F.max_pool2d(norm(layer, convolved), (1, convolved.shape[3]))[..., 0])
    stacked = [torch.cat(channels, 1)]
    for layer in MIDEND:
        kernel = tensors[f"{layer}.kernel"].transpose(1, 2)
        convolved = norm(layer, F.relu(F.conv1d(stacked[-1], kernel, tensors[f"{layer}.bias"], padding=3)))
        stacked.append(convolved if layer == MIDEND[0] else convolved + stacked[-1])
    features = torch.cat(stacked, 1)
    pooled = norm("pooled", torch.stack((features.amax(2), features.mean(2)), -1).flatten(1))
    hidden = F.relu(F.linear(pooled, tensors["penultimate.kernel"], tensors["penultimate.bias"]))
    return torch.sigmoid(F.linear(norm("penultimate", hidden), tensors["tags.kernel"], tensors["tags.bias"]))


def plain(weights: MusicnnWeights) -> Callable[[Waveform], torch.Tensor]:
    """Return the straightforward port: each variant with its own spectrogram, patches in one batch."""
    log_mel = LogMel(weights.tensors["mel_filters"])
    variants = [
        {name[4:]: tensor for name, tensor in weights.tensors.items() if name.startswith(f"{variant}.")}
        for variant in ("msd", "mtt")
    ]

    @torch.inference_mode()
    def listen(window: Waveform) -> torch.Tensor:
        tags = []
        for tensors in variants:
            spectrogram = log_mel(normalised(torch.from_numpy(window.samples)))
            starts, _ = patch_plan(len(spectrogram))
            patches = torch.stack([spectrogram[start : start + PATCH_FRAMES] for start in starts])
            tags.append(plain_tags(tensors, patches))
        return torch.cat(tags, 1)

    return listen


def timed(listen: Callable[[Waveform], torch.Tensor], paths: list[Path]) -> tuple[float, torch.Tensor]:
    """Return the seconds that decoding and encoding all files took, and the tags of all patches."""
    start_s = time.perf_counter()
    tags = torch.cat([listen(window) for path in paths for window in windows(path)])
    return time.perf_counter() - start_s, tags


def extra_mib(weights: MusicnnWeights, window: Waveform) -> float:
    """Return by how much encoding one window raises the memory of this, so far idle, process."""
    encoder = MusicnnEncoder(weights)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoder.encode_patches(window)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024


def float16_change(weights: MusicnnWeights, window: Waveform) -> float:
    """Return by how much tags would change were the weights stored in float16."""
    halved = {name: tensor.half().float() for name, tensor in weights.tensors.items()}
    rounded = MusicnnEncoder(MusicnnWeights(halved, weights.tag_names, weights.sha256)).encode_patches(window)
    exact = MusicnnEncoder(weights).encode_patches(window)
    return float((rounded.tag_probabilities - exact.tag_probabilities).abs().max())


def synthesised_files(folder: Path) -> list[Path]:
    """Write five minutes of synthesised music as FLAC files."""
    from tests.unit.encoders.synthesised_music import synthesise

    paths = [folder / f"{style}.flac" for style in ("chamber", "band", "club")]
    for path in paths:
        soundfile.write(path, 0.7 * synthesise(path.stem, 100), 16000)
    return paths


def measure(paths: list[Path], num_runs: int) -> dict[str, object]:
    """Time both alternately and compare their tags."""
    weights = read_musicnn_weights()
    encoder, plain_listen = MusicnnEncoder(weights), plain(weights)

    def fast_listen(window: Waveform) -> torch.Tensor:
        return encoder.encode_patches(window).tag_probabilities

    fast_listen(next(windows(paths[0])))
    fast_s, plain_s, differences = [], [], []
    for _ in range(num_runs):
        seconds, tags = timed(fast_listen, paths)
        fast_s.append(seconds)
        seconds, plain_tags_ = timed(plain_listen, paths)
        plain_s.append(seconds)
        differences.append(float((tags - plain_tags_).abs().max()))
    audio_s = sum(window.duration_s for path in paths for window in windows(path))
    ratios = [slow / fast for slow, fast in zip(plain_s, fast_s, strict=True)]
    return {
        "threads": torch.get_num_threads(),
        "audio_s": round(audio_s, 1),
        "runs": num_runs,
        "times_real_time": round(audio_s / statistics.median(fast_s), 1),
        "times_real_time_plain": round(audio_s / statistics.median(plain_s), 1),
        "ratio_to_plain": round(statistics.median(plain_s) / statistics.median(fast_s), 2),
        "ratio_lowest_run": round(min(ratios), 2),
        "ratio_highest_run": round(max(ratios), 2),
        "largest_tag_difference": max(differences),
    }


def main() -> None:
    """Measure with each number of threads asked for, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, nargs="+", help="files to encode; default: synthesised music")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="default: 2 1")
    parser.add_argument("--runs", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = options.audio or synthesised_files(Path(folder))
        weights, window = read_musicnn_weights(), next(windows(paths[0]))
        about = {
            "torch": torch.__version__,
            "machine": platform.machine(),
            "audio": "given" if options.audio else "synthesised",
            "extra_mib_of_a_60_s_window": round(extra_mib(weights, window)),
            "tag_change_of_float16_weights": float16_change(weights, window),
        }
        print(json.dumps(about, indent=1))
        for threads in options.threads:
            torch.set_num_threads(threads)
            results.append(measure(paths, options.runs))
            print(json.dumps(results[-1], indent=1), flush=True)
    out = ROOT / "benchmarks/results/musicnn.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
