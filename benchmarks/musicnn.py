"""Times the MusiCNN encoder in onnxruntime against plain float32 torch, from audio file to features.

Run from the root of the checkout: `python benchmarks/musicnn.py [--threads N...] [--audio PATH...]`. Prints and
writes benchmarks/results/musicnn.json. Without audio, five minutes of synthesised music are used. The plain network
is the oracle of the tests.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
import torch

from mu_llama.arrays import FloatArray
from mu_llama.audio.waveform import Waveform
from mu_llama.encoders.musicnn.encoder import MusicnnEncoder, normalised, patch_plan
from mu_llama.encoders.musicnn.log_mel import LogMel
from mu_llama.encoders.musicnn.network import PATCH_FRAMES
from mu_llama.encoders.musicnn.weights import MusicnnWeights, Variant, read_musicnn_weights

ROOT = Path(__file__).parents[1]
WINDOW_S = 60
VARIANTS: tuple[Variant, ...] = ("msd", "mtt")


def windows(path: Path) -> Iterator[Waveform]:
    """Decode a file and yield its windows of up to a minute at 16 kHz."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(1), rate_hz, 16000)
    for start in range(0, len(mono) - 1600, WINDOW_S * 16000):
        yield Waveform(np.ascontiguousarray(mono[start : start + WINDOW_S * 16000]), 16000)


def plain(weights: MusicnnWeights) -> Callable[[Waveform], FloatArray]:
    """Return the straightforward port: each variant with its own spectrogram, patches in one batch."""
    from tests.factories.musicnn import plain_network

    log_mel = LogMel(weights.tensors["mel_filters"])

    @torch.inference_mode()
    def encode(window: Waveform) -> FloatArray:
        tags = []
        for variant in VARIANTS:
            spectrogram = log_mel(normalised(window.samples))
            starts, _ = patch_plan(len(spectrogram))
            patches = np.stack([spectrogram[start : start + PATCH_FRAMES] for start in starts])
            output = plain_network(weights.of_variant(variant), torch.from_numpy(patches))
            tags.append(output["tag_logits"].sigmoid().numpy())
        return np.concatenate(tags, 1)

    return encode


def timed(encode: Callable[[Waveform], FloatArray], paths: list[Path]) -> tuple[float, FloatArray]:
    """Return the seconds that decoding and encoding all files took, and the tags of all patches."""
    start_s = time.perf_counter()
    tags = np.concatenate([encode(window) for path in paths for window in windows(path)])
    return time.perf_counter() - start_s, tags


def extra_mib(weights: MusicnnWeights, window: Waveform) -> float:
    """Return by how much encoding one window raises the memory of this, so far idle, process."""
    encoder = MusicnnEncoder(weights)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoder.encode_patches(window)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024


def float16_change(weights: MusicnnWeights, window: Waveform) -> float:
    """Return by how much tags would change were the weights stored in float16."""
    halved = {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in weights.tensors.items()}
    rounded = MusicnnEncoder(MusicnnWeights(halved, weights.tag_names, weights.sha256)).encode_patches(window)
    exact = MusicnnEncoder(weights).encode_patches(window)
    return float(np.abs(rounded.tag_probabilities - exact.tag_probabilities).max())


def synthesised_files(folder: Path) -> list[Path]:
    """Write five minutes of synthesised music as FLAC files."""
    from tests.unit.encoders.synthesised_music import synthesise

    paths = [folder / f"{style}.flac" for style in ("chamber", "band", "club")]
    for path in paths:
        soundfile.write(path, 0.7 * synthesise(path.stem, 100), 16000)
    return paths


def measure(paths: list[Path], num_runs: int, *, threads: int) -> dict[str, object]:
    """Time both alternately and compare their tags."""
    torch.set_num_threads(threads)
    weights = read_musicnn_weights()
    encoder, plain_encode = MusicnnEncoder(weights, variants=VARIANTS, threads=threads), plain(weights)

    def fast_encode(window: Waveform) -> FloatArray:
        return encoder.encode_patches(window).tag_probabilities

    fast_encode(next(windows(paths[0])))
    fast_s, plain_s, differences = [], [], []
    for _ in range(num_runs):
        seconds, tags = timed(fast_encode, paths)
        fast_s.append(seconds)
        seconds, plain_tags = timed(plain_encode, paths)
        plain_s.append(seconds)
        differences.append(float(np.abs(tags - plain_tags).max()))
    audio_s = sum(window.duration_s for path in paths for window in windows(path))
    ratios = [slow / fast for slow, fast in zip(plain_s, fast_s, strict=True)]
    return {
        "threads": threads,
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
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "audio": "given" if options.audio else "synthesised",
            "extra_mib_of_a_60_s_window": round(extra_mib(weights, window)),
            "tag_change_of_float16_weights": float16_change(weights, window),
        }
        print(json.dumps(about, indent=1))
        for threads in options.threads:
            results.append(measure(paths, options.runs, threads=threads))
            print(json.dumps(results[-1], indent=1), flush=True)
    out = ROOT / "benchmarks/results/musicnn.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
