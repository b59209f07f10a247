"""Makes `tests/unit/encoders/musicnn_expected.json`: what the original musicnn says about synthesised clips.

In a throw-away environment, from the root of the checkout (numpy, soundfile come along with librosa):

    python -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 librosa==0.11.0
    /tmp/tf/bin/pip install --no-deps musicnn==0.1.0
    /tmp/tf/bin/python -m recipes.musicnn.expected_tags

Runs `musicnn.extractor.extractor` unchanged (which casts the mel spectrogram to float16), and once more
without that cast. The cast alone moves tags by 1e-4 to 6e-4, depending on the clip; these are calm clips.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # the graph is built with tf.compat.v1.layers
ENCODER_TESTS = Path(__file__).parents[2] / "tests/unit/encoders"
VARIANTS = ("msd", "mtt")
# style, seed, seconds, gain: quiet enough that 10000 * mel stays below float16's 65504
CLIPS = (("chamber", 1, 10.0, 0.1), ("band", 0, 11.0, 0.2), ("club", 0, 12.5, 0.2))


def mel_without_cast(path: str, num_frames: int, hop: int) -> tuple[npt.NDArray[np.float32], None]:
    """Stand in for `musicnn.extractor.batch_data`: the same patches without the cast to float16."""
    import librosa

    samples, rate_hz = librosa.load(path, sr=16000)
    mel = librosa.feature.melspectrogram(y=samples, sr=rate_hz, hop_length=256, n_fft=512, n_mels=96).T
    log_mel = np.log10(10000 * mel + 1)
    print(f"largest 10000 * mel: {10000 * mel.max():.0f} (float16 ends at 65504)")
    starts = range(0, len(log_mel) - num_frames + 1, hop)
    return np.stack([log_mel[start : start + num_frames] for start in starts]), None


def _line(patch: npt.NDArray[np.float32]) -> str:
    return " ".join(f"{value:.7f}" for value in patch)


def main() -> None:
    """Run both variants over every clip and write the tags down."""
    import soundfile
    from musicnn import extractor as original

    synthesise = runpy.run_path(str(ENCODER_TESTS / "synthesised_music.py"))["synthesise"]
    clips, largest_change = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for style, seed, duration_s, gain in CLIPS:
            path = str(Path(folder) / f"{style}.wav")
            soundfile.write(path, gain * synthesise(style, duration_s, seed=seed), 16000, subtype="FLOAT")
            tags: dict[str, dict[str, list[str]]] = {"float16_cast": {}, "float32": {}}
            cast_batch_data = original.batch_data
            for variant in VARIANTS:
                model = f"{variant.upper()}_musicnn"
                cast, names = original.extractor(path, model=model, extract_features=False)
                original.batch_data = mel_without_cast
                uncast, _ = original.extractor(path, model=model, extract_features=False)
                original.batch_data = cast_batch_data
                largest_change = max(largest_change, float(np.abs(cast - uncast).max()))
                best = np.argsort(-cast.mean(0))[:4]
                print(
                    style,
                    variant,
                    cast.shape,
                    {names[tag]: round(float(cast.mean(0)[tag]), 2) for tag in best},
                )
                tags["float16_cast"][variant] = [_line(patch) for patch in cast]
                tags["float32"][variant] = [_line(patch) for patch in uncast]
            clip = {"style": style, "seed": seed, "duration_s": duration_s, "gain": gain}
            clips.append(clip | tags)
    packages = ("musicnn", "tensorflow_cpu", "tf_keras", "librosa", "numpy")
    made_with = {"python": sys.version.split()[0]} | {package: version(package) for package in packages}
    expected = {
        "about": "tag probabilities of musicnn.extractor.extractor, one line per patch; float16_cast is the "
        "original, float32 the same without its cast of the mel spectrogram to float16",
        "made_by": "recipes/musicnn/expected_tags.py",
        "made_with": made_with,
        "largest_change_without_float16_cast": largest_change,
        "clips": clips,
    }
    lines = json.dumps(expected, indent=1)
    (ENCODER_TESTS / "musicnn_expected.json").write_text(lines + "\n")
    print(f"the float16 cast changes tags by at most {largest_change:.1e}")


if __name__ == "__main__":
    main()
