"""Any audio as a wav of 16-bit PCM, block by block."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import soundfile

from mu_llama.audio.read import open_audio
from mu_llama.errors import AudioError


def write_wav(source: Path, target: Path) -> None:
    """Convert a file at its own rate and channels; the wav appears whole or not at all.

    Raises:
        AudioError: if the source can't be heard, or the wav can't be written.
    """
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            open_audio(source) as stream,
            soundfile.SoundFile(
                scratch, "w", samplerate=stream.rate_hz, channels=stream.num_channels, format="WAV", subtype="PCM_16"
            ) as file,
        ):
            for block in stream:
                file.write(block.T)
        scratch.replace(target)
    except (OSError, soundfile.SoundFileError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{target}: can't be written ({error}); free space or check the folder") from error
    finally:
        with suppress(OSError):
            scratch.unlink()
