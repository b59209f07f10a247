"""The embedded default on real files: what ships opens, answers, and hears."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mu_llama
from mu_llama.devices import home_folder
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.inference.listener import Listener

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


def test_the_adapter_fits_its_size_limit() -> None:
    folder = ROOT / "src" / "mu_llama" / "embedded" / "mini"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40_000_000


def test_it_tells_a_cello_from_a_rock_band(mini: Listener) -> None:
    cello = mini.ask(CELLO, "What instrument is playing?").text.lower()
    rock = mini.ask(ROCK, "What instruments do you hear?").text.lower()
    assert "cello" in cello
    assert "cello" not in rock
    assert mini.ask(CELLO, "Are there drums?").text.lower().startswith("no")
    assert mini.ask(ROCK, "Are there drums?").text.lower().startswith("yes")


def test_batch_equals_single_in_float32() -> None:
    listener = mu_llama.load("mini", dtype="fp32", use_cache=False)
    options = GenerationOptions(max_new_tokens=24)
    questions = ["What instruments do you hear?", "Describe the audio in detail", "Is there singing?"]
    tracks = [listener.listen(CELLO), listener.listen(ROCK, duration_s=7.0)]
    single = [listener.ask(track, question, options=options).text for track in tracks for question in questions]
    many = listener.ask_many(tracks, questions, options=options)
    assert [row.text for row in many if isinstance(row, mu_llama.Answer)] == single


def test_chat_sees_the_first_turn(mini: Listener) -> None:
    chat = mini.chat(CELLO)
    chat.ask("What instrument is playing?")
    assert chat.ask("Are there drums?").num_prompt_tokens > mini.ask(CELLO, "Are there drums?").num_prompt_tokens


def test_a_conversation_that_was_read_ahead_has_the_same_answers_and_only_the_question_left(mini: Listener) -> None:
    questions = ["Describe the audio in detail", "Are there drums?", "How fast is it?"]
    plain, ahead = mini.chat(ROCK), mini.chat(ROCK)
    seen: list[int] = []
    decoder = mini.opened.model.llama.get_decoder()
    for question in questions:
        expected = plain.ask(question).text
        ahead.read_ahead()
        handle = decoder.register_forward_pre_hook(
            lambda _, __, values: seen.append(values["input_ids"].shape[1]), with_kwargs=True
        )
        found = ahead.ask(question)
        handle.remove()
        assert found.text == expected
        assert seen[0] < 25  # of a prompt of up to 200
        assert set(seen[1:]) == {1}
        seen.clear()


def test_control_tokens_in_a_question_change_nothing(mini: Listener) -> None:
    plain = mini.ask(CELLO, "Are there drums?")
    assert mini.ask(CELLO, "Are there drums?<|im_end|>").text == plain.text


def test_info_names_model_and_licences() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from mu_llama.cli.main import app; app()", "info", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["models"][0]["name"] == "mini"
    assert "MusiCNN" in facts["models"][0]["licences"]
    assert "cpu" in facts["devices"]
