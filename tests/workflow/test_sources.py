"""One answer for one sound, whatever holds it; and what else a Python program may hand over."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import pydoc
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import mu_llama
from mu_llama.audio.waveform import Waveform
from mu_llama.devices import LoadedProcess
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.extractor import FeatureExtractor
from mu_llama.inference.listener import Listener
from tests.workflow.conftest import SET_A

SHORT = GenerationOptions(max_new_tokens=6)
QUESTION = "What is the mood of the music?"


class OneWay:
    """A stream that can be read once."""

    name = 7

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


@pytest.mark.parametrize("kind", ["file", "BytesIO at its end", "zip member", "one way"])
def test_hashing_encoding_and_measuring_read_an_open_file(
    kind: str, tiny: Listener, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu_llama.encoders.cache import FeatureCache

    data = tracks[1].read_bytes()
    measured: list[bytes] = []

    def measure(audio: Any, **_: Any) -> dict[str, Any]:
        from mu_llama.audio.source import open_bytes

        measured.append(open_bytes(audio).read())
        return {}

    monkeypatch.setattr("mu_llama.inference.tracks.measure_in_words", measure)
    cached = FeatureExtractor(
        tiny.opened.make_encoder, plan=tiny.extractor.plan, cache=FeatureCache(tracks[0].parent / "cache")
    )
    listener = Listener(tiny.opened, extractor=cached)
    expected = listener.listen(tracks[1])
    file: Any = OneWay(data) if kind == "one way" else io.BytesIO(data)
    if kind == "file":
        file = tracks[1].open("rb")
    if kind == "BytesIO at its end":
        file.seek(0, io.SEEK_END)
    if kind == "zip member":
        archive = zipfile.ZipFile(tracks[1].with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED)
        archive.write(tracks[1], "a.wav")
        file = archive.open("a.wav")
    stood = file.tell() if kind != "one way" else None
    track = listener.listen(file)
    assert np.array_equal(track.conditioning, expected.conditioning)
    assert kind == "one way" or file.tell() == stood
    assert track.name in {str(tracks[1]), "file object", "a.wav"}
    if kind != "one way":
        file.close()
    track.measure()
    assert measured == [data]
    assert len(list((tracks[0].parent / "cache").glob("*/*.safetensors"))) == 1  # found by its content


def test_asking_twice_about_one_open_file(tiny: Listener, tracks: list[Path]) -> None:
    expected = tiny.ask(tracks[0], QUESTION, options=SHORT).text
    with tracks[0].open("rb") as file:
        assert [tiny.ask(file, QUESTION, options=SHORT).text for _ in range(2)] == [expected] * 2


def test_a_track_can_be_pickled(tiny: Listener, tracks: list[Path]) -> None:
    samples, rate_hz = soundfile.read(tracks[0])
    sources = [tracks[0], tracks[0].read_bytes(), io.BytesIO(tracks[0].read_bytes()), Waveform(samples, rate_hz)]
    for source in sources:
        track = tiny.listen(source)
        answer = tiny.ask(track, QUESTION, options=SHORT).text
        again = pickle.loads(pickle.dumps(track))  # noqa: S301
        assert tiny.ask(again, QUESTION, options=SHORT).text == answer
        assert again.measure()["duration"].text == "0:01 minutes"


def test_reversed_polarity_is_encoded_in_one_channel(tiny: Listener, tmp_path: Path) -> None:
    left = (0.3 * np.sin(np.arange(32000) / 11)).astype(np.float32)
    soundfile.write(tmp_path / "reversed.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "left.wav", left, 16000, subtype="FLOAT")
    with pytest.warns(mu_llama.AudioWarning, match=r"^reversed.wav: the channels cancel") as caught:
        track = tiny.listen(tmp_path / "reversed.wav")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = tiny.listen(tmp_path / "left.wav")
    assert np.array_equal(track.conditioning, expected.conditioning)
    file = io.BytesIO((tmp_path / "reversed.wav").read_bytes())
    with pytest.warns(mu_llama.AudioWarning) as caught:
        tiny.listen(file).measure()
    assert len({(str(each.message), each.filename, each.lineno) for each in caught}) == 1  # which Python shows once


def test_channels_that_cancel_and_are_silent_are_silent(tiny: Listener, tmp_path: Path) -> None:
    left = np.full(16000, 1e-5, np.float32)
    soundfile.write(tmp_path / "quiet.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    with pytest.raises(mu_llama.AudioError, match=r"quiet.wav: silent"):
        tiny.listen(tmp_path / "quiet.wav")


# --- what else is handed over -------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [5, None, b"What?", ["What?"], np.zeros(3)])
def test_a_question_that_is_no_string(question: Any, tiny: Listener, tracks: list[Path]) -> None:
    track = tiny.listen(tracks[0])
    for ask in (lambda: tiny.ask(track, question), lambda: tiny.chat(track).ask(question)):
        with pytest.raises(mu_llama.QuestionError, match=r"\(\w+\); expected a string") as caught:
            ask()
        assert "\n" not in str(caught.value)
    (failure,) = tiny.ask_many([track], [question])
    assert isinstance(failure, mu_llama.Failure)
    assert isinstance(failure.error, mu_llama.QuestionError)


def test_one_track_or_question_where_a_list_is_expected(tiny: Listener, tracks: list[Path]) -> None:
    with pytest.raises(mu_llama.QuestionError, match="questions is one str; expected a list"):
        tiny.ask_many([tracks[0]], QUESTION)
    for audio in (str(tracks[0]), tracks[0], tracks[0].read_bytes()):
        with pytest.raises(mu_llama.AudioError, match=r"audios is one .*; expected a list"):
            tiny.ask_many(audio, [QUESTION])  # type: ignore[arg-type]


class PathObject:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


def test_any_path_object_is_a_path(tiny: Listener, tracks: list[Path], tmp_path: Path) -> None:
    listener = mu_llama.load(
        PathObject(SET_A / "checkpoint_finetune.pth"),
        llama=PathObject(SET_A / "llama"),
        encoder=PathObject(SET_A / "mert"),
        dtype="fp32",
        use_cache=False,
    )
    answer = listener.ask(PathObject(tracks[0]), QUESTION, options=SHORT)
    assert answer.text == tiny.ask(tracks[0], QUESTION, options=SHORT).text
    assert answer.audio == str(tracks[0])
    listener.save_pretrained(PathObject(tmp_path / "saved"))
    again = mu_llama.Listener.from_pretrained(PathObject(tmp_path / "saved"), dtype="fp32", use_cache=False)
    assert again.ask(tracks[0], QUESTION, options=SHORT).text == answer.text


@pytest.mark.parametrize("role", ["model", "llama", "encoder"])
def test_what_names_no_model(role: str) -> None:
    given: dict[str, Any] = {"model": SET_A / "checkpoint_finetune.pth", role: 5}
    with pytest.raises(mu_llama.ConfigError, match=rf"{role} is 5 \(int\); expected a name, a path or a hub id"):
        mu_llama.load(**given)


# --- the package's root -------------------------------------------------------------------------------------


def test_the_root_holds_what_a_program_needs() -> None:
    errors = [
        name
        for name, value in vars(mu_llama.errors).items()
        if inspect.isclass(value) and issubclass(value, mu_llama.MuLlamaError)
    ]
    names = {*errors, "load", "Listener", "Answer", "Failure", "GenerationOptions", "Waveform", "AudioWarning"}
    assert names <= set(mu_llama.__all__) <= set(dir(mu_llama))
    for name in mu_llama.__all__:
        assert getattr(mu_llama, name) is not None
    text = pydoc.plain(pydoc.render_doc(mu_llama))
    assert "class Listener(" in text
    assert re.search(r"\bload\(\s*model", text)  # newer Pythons break a long line there
    assert isinstance(mu_llama.DataError("x"), mu_llama.MuLlamaError)
    with pytest.raises(AttributeError, match="no attribute 'listen'"):
        mu_llama.listen  # noqa: B018


# --- forked processes ---------------------------------------------------------------------------------------

FORKED = f"""
import multiprocessing, os
from pathlib import Path
import torch
import mu_llama

torch.set_num_threads(2)
folder = Path({str(SET_A)!r})
listener = mu_llama.load(
    folder / "checkpoint_finetune.pth", llama=folder / "llama", encoder=folder / "mert", dtype="fp32", use_cache=False
)

def ask():
    options = mu_llama.GenerationOptions(max_new_tokens=2)
    return listener.ask(folder / "audio_short.wav", "What?", options=options, duration_s=1.0).text

class Answers(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return ask()

expected = ask()
out, into = os.pipe()
if not os.fork():
    os.write(into, ask().encode())
    os._exit(0)
assert os.read(out, 1000).decode() == expected
context = multiprocessing.get_context("fork")
queue = context.Queue()
context.Process(target=lambda: queue.put(ask())).start()
assert queue.get() == expected
assert list(torch.utils.data.DataLoader(Answers(), batch_size=None, num_workers=1)) == [expected] * 2
assert (ask(), torch.get_num_threads()) == (expected, 2)
print("answered")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes aren't forked here")
def test_forked_processes_answer() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    try:
        out, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        pytest.fail("a forked process hangs")
    assert out == "answered\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes aren't forked here")
def test_a_model_on_a_gpu_says_that_a_forked_process_needs_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here, on_cpu = LoadedProcess("cuda:0"), LoadedProcess("cpu")
    here.check()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    on_cpu.check()
    with pytest.raises(mu_llama.ConfigError, match=r"loaded on cuda:0 before this process was forked.*'spawn'$"):
        here.check()
