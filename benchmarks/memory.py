"""Peak memory of `mu-llama ask` on a file of two hours against one of 30 seconds, nothing cached."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.measure import CLIP, COMMAND, run_process, write_result
from mu_llama.audio.read import read_audio

HOURS = 2
FORMATS = {"flac": "FLAC", "mp3": "MP3"}
# Runs the command in a child of its own and reports that child's peak.
PEAK = "import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
PEAK += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def peak_mib(path: Path) -> float:
    """Peak resident memory of the command on a file."""
    command = [COMMAND, "ask", path, "-q", "What instruments do you hear?", "--no-cache", "--max-new-tokens", "20"]
    return int(run_process([sys.executable, "-c", PEAK, *command]).output) / 1024


def write_long(path: Path, container: str, seconds: float) -> None:
    """Repeat the example clip, in stereo at 44.1 kHz, block by block."""
    clip = read_audio(CLIP, rate_hz=44100).samples
    block = np.stack([clip, clip * 0.9], axis=1)
    with soundfile.SoundFile(path, "w", 44100, 2, format=container) as file:
        for _ in range(round(seconds / (len(clip) / 44100))):
            file.write(block)


def main() -> None:
    """Measure and write the result."""
    peaks: dict[str, dict[str, float]] = {}
    for suffix, container in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            short, long = Path(folder) / f"short.{suffix}", Path(folder) / f"long.{suffix}"
            write_long(short, container, 30)
            write_long(long, container, HOURS * 3600)
            peaks[suffix] = {"30 s": round(peak_mib(short), 1), f"{HOURS} h": round(peak_mib(long), 1)}
            print(json.dumps({suffix: peaks[suffix]}), flush=True)
    extra = {suffix: round(row[f"{HOURS} h"] - row["30 s"], 1) for suffix, row in peaks.items()}
    write_result("memory", {"what": "peak resident memory of `mu-llama ask`, MiB", "peak": peaks, "extra": extra})


if __name__ == "__main__":
    main()
