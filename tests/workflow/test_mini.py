"""The embedded default on real files: what ships opens, answers, and hears."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mu_llama
from mu_llama.cache_folder import home_folder
from mu_llama.cli.main import typer_app
from mu_llama.engine.onnx.rows import OnnxRows
from mu_llama.engine.prefix import PrefixCache
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import EncodedTrack

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "examples" / "audio"
CELLO, ROCK = CLIPS / "midnight-dance-cello.ogg", CLIPS / "war-of-freedom.ogg"
REAL_HOME = home_folder()


@pytest.fixture(autouse=True)
def real_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the converted model of this machine, fetched once, and not a fresh one for each test."""
    monkeypatch.setenv("MU_LLAMA_HOME", str(REAL_HOME))


@pytest.fixture(scope="module")
def mini() -> Listener:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MU_LLAMA_HOME", str(REAL_HOME))
        return mu_llama.load("mini", use_cache=False)


@pytest.fixture(scope="module")
def cello(mini: Listener) -> EncodedTrack:
    return mini.listen(CELLO)


@pytest.fixture(scope="module")
def rock(mini: Listener) -> EncodedTrack:
    return mini.listen(ROCK)


def test_the_adapter_fits_its_size_limit() -> None:
    folder = ROOT / "src" / "mu_llama" / "embedded" / "mini"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40_000_000


def test_it_tells_a_cello_from_a_rock_band(mini: Listener, cello: EncodedTrack, rock: EncodedTrack) -> None:
    assert "cello" in mini.ask(CELLO, "What instrument is playing?").text.lower()
    assert "cello" not in mini.ask(rock, "What instruments do you hear?").text.lower()
    assert mini.ask(cello, "Are there drums?").text.lower().startswith("no")
    assert mini.ask(rock, "Are there drums?").text.lower().startswith("yes")


def test_batch_equals_single_in_float32() -> None:
    listener = mu_llama.load("mini", dtype="fp32", use_cache=False)
    options = GenerationOptions(max_new_tokens=12)
    questions = ["What instruments do you hear?", "Describe the audio in detail", "Is there singing?"]
    tracks = [listener.listen(CELLO, duration_s=5.0), listener.listen(ROCK, duration_s=7.0)]
    single = [listener.ask(track, question, options=options).text for track in tracks for question in questions]
    many = listener.ask_many(tracks, questions, options=options)
    assert [row.text for row in many if isinstance(row, mu_llama.Answer)] == single


def test_chat_sees_the_first_turn(mini: Listener, cello: EncodedTrack) -> None:
    chat = mini.chat(cello)
    chat.ask("What instrument is playing?")
    assert chat.ask("Are there drums?").num_prompt_tokens > mini.ask(cello, "Are there drums?").num_prompt_tokens


def test_a_conversation_that_was_read_ahead_has_the_same_answers_and_only_the_question_left(
    mini: Listener, rock: EncodedTrack
) -> None:
    questions = ["Describe the audio in detail", "Are there drums?", "How fast is it?"]
    options = GenerationOptions(max_new_tokens=32)
    plain, ahead = (mini.chat(replace(rock, prefix=PrefixCache()), options=options) for _ in range(2))
    seen: list[int] = []
    read = OnnxRows.read

    def spied(rows: OnnxRows, row: int, ids: Sequence[int]) -> Any:
        seen.append(len(ids))
        return read(rows, row, ids)

    for question in questions:
        expected = plain.ask(question).text
        ahead.read_ahead()
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OnnxRows, "read", spied)
            answer = ahead.ask(question)
        assert answer.text == expected
        assert sum(seen) < 25  # of a prompt of up to 200


def test_control_tokens_in_a_question_change_nothing(mini: Listener, cello: EncodedTrack) -> None:
    plain = mini.ask(cello, "Are there drums?")
    assert mini.ask(cello, "Are there drums?<|im_end|>").text == plain.text


def test_info_names_model_and_licences() -> None:
    facts = json.loads(CliRunner().invoke(typer_app, ["info", "--json"]).stdout)
    assert facts["models"][0]["name"] == "mini"
    assert "MusiCNN" in facts["models"][0]["licences"]
    assert "cpu" in facts["devices"]
