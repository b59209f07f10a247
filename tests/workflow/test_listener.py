"""The facade on a tiny model: equal things stay equal, and options do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mu_llama
from mu_llama.audio.waveform import Waveform
from mu_llama.engine.sampling import GenerationOptions
from mu_llama.errors import AudioError, CheckpointError, ConfigError, ModelNotFoundError, QuestionError
from mu_llama.inference.listener import Listener
from mu_llama.inference.results import Answer, Failure
from mu_llama.model.retrieval import BlendOptions
from mu_llama.text.prompts import Turn
from tests.workflow.conftest import SET_A

QUESTIONS = ["What is the mood of the music?", "Describe the audio", "Is this a rather long question about drums?"]
SHORT = GenerationOptions(max_new_tokens=12)


def texts(answers: list[Answer | Failure]) -> list[str]:
    assert all(isinstance(answer, Answer) for answer in answers)
    return [answer.text for answer in answers if isinstance(answer, Answer)]


def test_answer_equals_the_golden_text(tiny: Listener) -> None:
    cases = json.loads((SET_A / "expected.json").read_text())
    case = next(c for c in cases["greedy"] if c["model"] == "finetune" and c["audio"] == "short")
    question = cases["prompts"][case["prompt"]]["question"]
    options = GenerationOptions(max_new_tokens=case["max_gen_len"])
    answer = tiny.ask(SET_A / "audio_short.wav", question, options=options)
    assert answer.text == case["text"].strip()
    assert answer.num_tokens == len(case["token_ids"])
    assert answer.heard == ((0.0, 3.0),)
    assert answer.num_prompt_tokens == len(cases["prompts"][case["prompt"]]["ids"])


def test_encoder_out_of_the_checkpoint_needs_a_known_size() -> None:
    listener = mu_llama.load(SET_A / "checkpoint_finetune.pth", llama=SET_A / "llama", dtype="fp32")
    with pytest.raises(CheckpointError, match="width 24"):
        listener.ask(SET_A / "audio_short.wav", "What?")


def test_ask_many_equals_one_by_one(tiny: Listener, tracks: list[Path]) -> None:
    single = [tiny.ask(track, question, options=SHORT) for track in tracks for question in QUESTIONS]
    for batch_size in (1, 4, 16):
        many = tiny.ask_many(tracks, QUESTIONS, options=SHORT, batch_size=batch_size)
        assert texts(many) == [answer.text for answer in single]
        assert [(a.audio, a.question) for a in many] == [(a.audio, a.question) for a in single]
        assert [a.num_tokens for a in many if isinstance(a, Answer)] == [a.num_tokens for a in single]
    assert len(set(texts(many))) > 1, "all answers alike: the test could not fail"


def test_ask_many_samples_as_one_by_one(tiny: Listener, tracks: list[Path]) -> None:
    options = GenerationOptions(max_new_tokens=10, temperature=0.8, top_p=0.9, seed=7)
    single = [tiny.ask(track, QUESTIONS[0], options=options).text for track in tracks]
    assert texts(tiny.ask_many(tracks, QUESTIONS[:1], options=options)) == single


def test_seed_repeats_and_matters(tiny: Listener, tracks: list[Path]) -> None:
    def sampled(seed: int) -> str:
        options = GenerationOptions(max_new_tokens=16, temperature=1.5, seed=seed)
        return tiny.ask(tracks[0], QUESTIONS[0], options=options).text

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_stream_joined_is_the_answer(tiny: Listener, tracks: list[Path]) -> None:
    stream = tiny.stream(tracks[1], QUESTIONS[0], options=SHORT)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.answer.text == tiny.ask(tracks[1], QUESTIONS[0], options=SHORT).text


def test_stopping_a_stream_stops_the_computation(tiny: Listener, tracks: list[Path]) -> None:
    calls = []
    handle = tiny.opened.engine.model.llama.register_forward_hook(lambda *_: calls.append(1))
    try:
        stream = iter(tiny.stream(tracks[1], QUESTIONS[0], options=GenerationOptions(max_new_tokens=50)))
        next(stream)
        num_calls = len(calls)
        del stream
    finally:
        handle.remove()
    assert len(calls) == num_calls <= 5


def test_stop_text_is_cut_off(tiny: Listener, tracks: list[Path]) -> None:
    whole = tiny.ask(tracks[1], QUESTIONS[0], options=SHORT).text
    middle = whole[len(whole) // 2 : len(whole) // 2 + 2]
    options = GenerationOptions(max_new_tokens=12, stop=(middle,))
    stopped = tiny.ask(tracks[1], QUESTIONS[0], options=options)
    assert stopped.text == whole[: whole.index(middle)].rstrip()
    assert stopped.finish_reason == "stop"
    assert stopped.num_tokens < 12


def test_length_ends_an_answer(tiny: Listener, tracks: list[Path]) -> None:
    answer = tiny.ask(tracks[1], QUESTIONS[0], options=GenerationOptions(max_new_tokens=3))
    assert (answer.finish_reason, answer.num_tokens) == ("length", 3)


def test_the_audio_matters(tiny: Listener, tracks: list[Path]) -> None:
    one, other = (tiny.listen(track).conditioning for track in tracks[:2])
    assert not np.allclose(one, other)


def test_chat_puts_the_history_into_the_prompt(tiny: Listener, tracks: list[Path]) -> None:
    chat = tiny.chat(tracks[0], options=SHORT)
    first = chat.ask(QUESTIONS[0])
    second = chat.ask(QUESTIONS[1])
    turns = [Turn(QUESTIONS[0], first.text), Turn(QUESTIONS[1])]
    prompt = tiny.opened.parts.template.render(turns)
    assert QUESTIONS[0] in prompt
    assert first.text in prompt
    assert second.num_prompt_tokens == len(tiny.opened.tokenizer.encode_prompt(prompt))
    assert second.text == tiny.stream_turns(chat.track, turns, options=SHORT).answer.text
    assert [turn.answer for turn in chat.turns] == [first.text, second.text]


def test_caption_asks_to_describe(tiny: Listener, tracks: list[Path]) -> None:
    caption = tiny.caption(tracks[0], options=SHORT)
    assert caption.text == tiny.ask(tracks[0], caption.question, options=SHORT).text
    assert tiny.caption(tracks[0], detail="long", options=SHORT).question != caption.question
    with pytest.raises(ConfigError, match="short, long"):
        tiny.caption(tracks[0], detail="epic")  # type: ignore[arg-type]


def test_sources_of_the_same_sound_give_the_same_answer(tiny: Listener, tracks: list[Path]) -> None:
    expected = tiny.ask(tracks[0], QUESTIONS[0], options=SHORT).text
    assert tiny.ask(str(tracks[0]), QUESTIONS[0], options=SHORT).text == expected
    assert tiny.ask(tracks[0].read_bytes(), QUESTIONS[0], options=SHORT).text == expected
    with tracks[0].open("rb") as file:
        assert tiny.ask(file, QUESTIONS[0], options=SHORT).text == expected


def test_cached_features_give_the_same_answer(tracks: list[Path], home: Path) -> None:
    files = {"llama": SET_A / "llama", "encoder": SET_A / "mert"}
    listener = mu_llama.load(SET_A / "checkpoint_finetune.pth", **files, dtype="fp32")
    fresh = listener.listen(tracks[0])
    assert list((home / "features").rglob("*.safetensors"))
    listener.extractor.encoder.encode = None  # type: ignore[method-assign, assignment]  # must not be asked again
    cached = listener.listen(tracks[0])
    assert np.array_equal(cached.conditioning, fresh.conditioning)
    assert cached.spans == fresh.spans


def test_offset_and_duration_choose_what_is_heard(tiny: Listener, tracks: list[Path]) -> None:
    answer = tiny.ask(tracks[2], QUESTIONS[0], options=SHORT, offset_s=1.0, duration_s=2.0)
    assert answer.heard == ((1.0, 3.0),)


def test_published_window_hears_the_first_minute(tiny: Listener) -> None:
    long = Waveform(np.random.default_rng(0).normal(0, 0.1, 75 * 8000).astype(np.float32), 8000)
    assert tiny.listen(long).spans == ((0.0, 60.0),)


def test_neighbours_change_the_answer_only_by_weight(tracks: list[Path]) -> None:
    files = {"llama": SET_A / "llama", "encoder": SET_A / "mert", "knn_index": SET_A / "knn" / "knn.index"}
    heard = []
    for weight in (0.0, 0.5):
        blend = BlendOptions(weight=weight, num_neighbours=10)
        listener = mu_llama.load(SET_A / "checkpoint_finetune.pth", **files, blend=blend, dtype="fp32")
        heard.append(listener.listen(tracks[0]).conditioning)
    assert not np.allclose(heard[0], heard[1])


def test_one_bad_track_leaves_the_others(tiny: Listener, tracks: list[Path], tmp_path: Path) -> None:
    missing = tmp_path / "gone.wav"
    rows = tiny.ask_many([tracks[0], missing, tracks[1]], QUESTIONS[:2], options=SHORT)
    assert [isinstance(row, Failure) for row in rows] == [False, False, True, True, False, False]
    failure = rows[2]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, FileNotFoundError)
    assert rows[4].audio == str(tracks[1])


def test_bad_questions(tiny: Listener, tracks: list[Path]) -> None:
    with pytest.raises(QuestionError, match="empty"):
        tiny.ask(tracks[0], "  \n ")
    with pytest.raises(QuestionError, match="tokens long"):
        tiny.ask(tracks[0], "why " * 9000)


def test_silence_is_refused(tiny: Listener) -> None:
    with pytest.raises(AudioError, match="silent"):
        tiny.ask(Waveform(np.zeros(24000, dtype=np.float32), 24000), "What?")


def test_unknown_models_and_settings() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean 'mini'"):
        mu_llama.load("minni")
    with pytest.raises(ConfigError, match="--llama"):
        mu_llama.load(SET_A / "checkpoint_finetune.pth")
    with pytest.raises(ConfigError, match="bf16"):
        mu_llama.load("mini", dtype="int3")
    with pytest.raises(ConfigError, match="window"):
        mu_llama.load("mini", window="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belong together"):
        mu_llama.load("mini", knn_index="x")
    with pytest.raises(ConfigError, match=r"isn't available|unknown"):
        mu_llama.load("mini", device="tpu")


def test_old_names_work_with_a_warning(tiny: Listener, tracks: list[Path], tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="is now Listener.extractor"):
        assert tiny.hearing is tiny.extractor
    with pytest.warns(DeprecationWarning, match="quantise= is now quantize="), pytest.raises(ConfigError, match="int8"):
        mu_llama.load("mini", quantise="int2")
    with pytest.raises(TypeError, match="give quantize="):
        mu_llama.load("mini", quantise="int8", quantize="int8")
    written: list[str] = []

    def progress(label: str, total: int) -> Callable[[int], None]:
        written.append(label)
        return lambda _: None

    with pytest.warns(DeprecationWarning, match="track= is now progress="):
        tiny.save_pretrained(tmp_path / "saved", track=progress)  # type: ignore[call-arg]
    assert written
    track = tiny.listen(tracks[0])
    with pytest.warns(DeprecationWarning, match="heard is now EncodedTrack.spans"):
        assert track.heard == track.spans


def test_one_open_file_can_be_asked_about_twice(tracks: list[Path]) -> None:
    files = {"llama": SET_A / "llama", "encoder": SET_A / "mert"}
    listener = mu_llama.load(SET_A / "checkpoint_finetune.pth", **files, dtype="fp32")
    with tracks[0].open("rb") as file:
        answers = [listener.ask(file, QUESTIONS[0], options=SHORT).text for _ in range(3)]
    assert len(set(answers)) == 1


def test_what_is_no_audio_is_refused(tiny: Listener) -> None:
    for thing in (3, np.zeros(4), None):
        with pytest.raises(AudioError, match="expected a path"):
            tiny.listen(thing)  # type: ignore[arg-type]
