"""Encode every clip, and an augmented version of some, into the project's feature cache.

Training then never opens the sound again. Run in the project's own environment, as several processes if you like:
python -m recipes.mini.extract_features --work DIR --part 0 --of 2
"""

from __future__ import annotations

import argparse
import io
import json
import random
from pathlib import Path

import av
import numpy as np
import soundfile

from mu_llama.audio.augment import chain
from mu_llama.audio.read import read_audio
from mu_llama.audio.waveform import Waveform
from mu_llama.files import drop_cut_line, read_lines
from recipes.mini.encoder import open_encoder
from recipes.mini.plans import is_again

SHORTEST_S = 8.0
CODEC_BITS_A_SECOND = 64_000
_CHANGE = chain(["level", "equaliser", "noise", "phone"])
_FLUSH_EVERY = 100
CHANGED_SHARE = 0.5
"""Of the training clips; the others, and all that are played again, are encoded as they are alone."""


def through_codec(sound: Waveform) -> Waveform:
    """Encode as MP3 at 64 kbit/s and decode again; the length may grow by the codec's padding."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=sound.rate_hz, layout="mono")
        stream.bit_rate = CODEC_BITS_A_SECOND
        frame = av.AudioFrame.from_ndarray(sound.samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = sound.rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return read_audio(buffer.getvalue(), rate_hz=sound.rate_hz)


def changed(sound: Waveform, rng: random.Random) -> Waveform:
    """A shorter stretch, most of the time; louder, duller, noisier or through a telephone; half the time as MP3."""
    if rng.random() < 0.6:
        size = round(rng.uniform(SHORTEST_S, sound.duration_s) * sound.rate_hz)
        start = rng.randrange(max(1, sound.samples.size - size))
        sound = Waveform(sound.samples[start : start + size], sound.rate_hz)
    sound = _CHANGE(sound, rng)
    return through_codec(sound) if rng.random() < 0.5 else sound


def changed_path(work: Path, clip: dict[str, object]) -> Path:
    """Where the changed version of a clip lies."""
    return work / "changed" / str(clip["group"]) / f"{clip['id']}.flac"


def is_changed(clip: dict[str, object]) -> bool:
    """Whether a clip has a changed version: half of those to train on have, played for the first time."""
    if is_again(str(clip["id"])):
        return False
    return clip["split"] == "train" and random.Random(f"is changed {clip['id']}").random() < CHANGED_SHARE


def _write_changed(work: Path, clip: dict[str, object]) -> Path:
    path = changed_path(work, clip)
    if not path.exists():
        sound = changed(read_audio(work / str(clip["path"]), rate_hz=16_000), random.Random(f"changed {clip['id']}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        soundfile.write(part, np.clip(sound.samples, -1, 1), sound.rate_hz, format="FLAC", subtype="PCM_16")
        part.replace(path)
    return path


def extract(work: Path, *, part: int, of: int) -> None:
    """Encode this process's share of the clips; tag probabilities go to `tags.<part>-of-<of>.jsonl`."""
    encoder, extractor = open_encoder(threads=1)
    out = work / f"tags.{part}-of-{of}.jsonl"
    drop_cut_line(out)
    done = {row["id"] for row in read_lines(out)}
    clips = [json.loads(line) for path in sorted((work / "clips").glob("?.jsonl")) for line in path.open()]
    mine = [clip for number, clip in enumerate(sorted(clips, key=lambda c: c["id"])) if number % of == part]
    todo = [clip for clip in mine if clip["id"] not in done]
    with out.open("a") as file:
        for number, clip in enumerate(todo, start=1):
            values = extractor.extract(work / clip["path"]).values
            if is_changed(clip):
                extractor.extract(_write_changed(work, clip))
            tags = {name: round(value, 3) for name, value in encoder.tag_probabilities(values).items()}
            file.write(json.dumps({"id": clip["id"], "tags": tags}) + "\n")
            if number % _FLUSH_EVERY == 0 or number == len(todo):
                file.flush()
                print(f"{number}/{len(todo)} clips encoded", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    arguments = parser.parse_args()
    extract(arguments.work, part=arguments.part, of=arguments.of)
