"""Every bad file gives an answer or one line that names it; never a traceback."""

from __future__ import annotations

import builtins
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from mu_llama.cli.main import typer_app
from mu_llama.inference.listener import Listener
from tests.workflow.conftest import SET_A

MODEL = ["--model", str(SET_A / "checkpoint_finetune.pth"), "--llama", str(SET_A / "llama")]
MODEL += ["--encoder", str(SET_A / "mert"), "--dtype", "fp32", "--max-new-tokens", "4"]
QUESTION = ["-q", "What is the mood of the music?"]


def tone(seconds: float, rate_hz: int, *, channels: int = 1) -> np.ndarray[Any, Any]:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


@pytest.fixture
def loaded(tiny: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get the model that is loaded once for all tests."""
    monkeypatch.setattr("mu_llama.cli.options.load_listener", lambda _: tiny)


def ask(*arguments: str | Path) -> Any:
    return CliRunner().invoke(typer_app, ["ask", *map(str, arguments), *MODEL])


def write_video_without_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))


def write_wav(path: Path, samples: np.ndarray[Any, Any], rate_hz: int, **settings: Any) -> None:
    soundfile.write(path, samples, rate_hz, format="WAV", **settings)


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(3, 16000), 16000, format="OGG")
    path.write_bytes(buffer.getvalue()[:60])


REFUSED: dict[str, Callable[[Path], object]] = {
    "missing.wav": lambda path: None,
    "empty.wav": lambda path: path.write_bytes(b""),
    "header only.ogg": truncated,
    "text.mp3": lambda path: path.write_text("this is no music\n" * 50),
    "film.mp4": write_video_without_sound,
    "nothing.wav": lambda path: write_wav(path, np.zeros((0, 1), np.float32), 16000),
    "nan.wav": lambda path: write_wav(path, np.full((16000, 1), np.nan, np.float32), 16000, subtype="FLOAT"),
    "silence.wav": lambda path: write_wav(path, np.zeros((16000, 1), np.float32), 16000),
    "folder.wav": lambda path: path.mkdir(),
}
ANSWERED: dict[str, Callable[[Path], object]] = {
    "eight channels.wav": lambda path: write_wav(path, tone(1, 16000, channels=8), 16000),
    "192 kHz.wav": lambda path: write_wav(path, tone(1, 192000), 192000),
    "8 kHz.wav": lambda path: write_wav(path, tone(1, 8000), 8000),
    "short.wav": lambda path: write_wav(path, tone(0.2, 44100), 44100),
    "Ünïcode 音楽 with spaces.wav": lambda path: write_wav(path, tone(1, 16000), 16000),
    "-dash.wav": lambda path: write_wav(path, tone(1, 16000), 16000),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("loaded")
def test_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    REFUSED[name](path)
    result = ask(path, *QUESTION)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert name in line
    assert ";" in line or ":" in line.removeprefix("error: ").split(name, 1)[1], "no word on what to do"


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.usefixtures("loaded")
def test_answered(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    ANSWERED[name](path)
    result = ask(path, *QUESTION, "--json")
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)
    assert row["audio"] == str(path)
    assert row["answer"]
    assert row["heard_s"][0][0] == 0.0


@pytest.mark.usefixtures("loaded")
def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.wav"
    write_wav(path, tone(1, 16000), 16000)

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return io.open(self, *args, **kwargs)  # noqa: UP020 - the builtin is patched

    monkeypatch.setattr(Path, "open", refuse)
    original = builtins.open
    monkeypatch.setattr(
        builtins,
        "open",
        lambda file, *a, **k: refuse(Path(file)) if str(file) == str(path) else original(file, *a, **k),
    )
    result = ask(path, *QUESTION)
    assert result.exit_code == 2
    assert "locked.wav" in result.stderr
    assert "permission" in result.stderr.lower()


@pytest.mark.usefixtures("loaded")
def test_bad_ones_of_a_batch_leave_the_others(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.mp3"
    write_wav(good, tone(1, 16000), 16000)
    bad.write_text("no music")
    for flags in (["--json"], []):
        result = ask(bad, good, *QUESTION, *flags)
        assert result.exit_code == 1
        assert "bad.mp3" in result.stderr
        assert "good.wav" in result.stdout
    rows = [json.loads(line) for line in ask(bad, good, *QUESTION, "--json").stdout.splitlines()]
    assert ["error" in row for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-q", " "], "empty"),
        (["-q", "What?", "--temperature", "nan"], "temperature"),
        (["-q", "What?", "--window", "half"], "window"),
        (["-q", "What?", "--dtype", "int1"], "dtype"),
        (["-q", "What?", "--device", "tpu"], "device"),
    ],
)
def test_bad_settings(arguments: list[str], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    result = CliRunner().invoke(typer_app, ["ask", str(path), *MODEL, *arguments])
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_unknown_model_and_wrong_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    unknown = CliRunner().invoke(typer_app, ["ask", str(path), *QUESTION, "--model", "maxi"])
    assert unknown.exit_code == 2
    assert "maxi" in unknown.stderr
    notes = tmp_path / "notes.pth"
    notes.write_text("not weights")
    wrong = CliRunner().invoke(
        typer_app, ["ask", str(path), *QUESTION, "--model", str(notes), "--llama", str(SET_A / "llama")]
    )
    assert wrong.exit_code == 2
    assert "notes.pth" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


def test_the_installed_command_answers_a_truncated_file_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    write_wav(path, tone(3, 16000), 16000)
    path.write_bytes(path.read_bytes()[:50000])
    done = run("ask", path, *QUESTION, *MODEL, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: ")
    assert "cut.wav" in done.stderr
    assert set(json.loads(done.stdout)) == {
        "audio", "question", "answer", "heard_s", "model", "finish_reason", "num_tokens", "seconds",
    }  # fmt: skip


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = shutil.which("mu-llama", path=str(Path(sys.executable).parent))
    assert command is not None, "the command isn't installed beside this Python"
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("loaded")
def test_an_empty_question_of_several_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    for flags in (["--json"], []):
        result = ask(path, "-q", " ", *QUESTION, *flags)
        assert result.exit_code == 1
        assert "empty" in result.stderr


@pytest.mark.usefixtures("loaded")
def test_a_question_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    result = ask(path, "-q", "say \udcff")
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


@pytest.mark.usefixtures("loaded")
def test_a_stretch_too_short_to_hear_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    result = ask(path, *QUESTION, "--duration", "0.005")
    assert result.exit_code == 2
    assert "good.wav" in result.stderr


def test_a_full_disk_and_a_closed_pipe(tmp_path: Path) -> None:
    path = tmp_path / "good.wav"
    write_wav(path, tone(1, 16000), 16000)
    command = [str(Path(sys.executable).parent / "mu-llama"), "ask", str(path), *QUESTION, *MODEL]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left")
    # Triton, in builds of torch for GPUs, may list what it leaked when Python 3.13 ends.
    assert len([line for line in done.stderr.splitlines() if not line.startswith(("nanobind", " - ", "See "))]) == 1
