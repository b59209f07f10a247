"""The template writer, the checks, and constrained decoding with a local model."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mu_llama.cache_folder import home_folder
from mu_llama.checkpoints.embedded import SMOLLM2, provide_llama
from mu_llama.errors import ConfigError, ModelNotFoundError
from mu_llama.labels.grounding import labels_of
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import Damaged, Reply, ReplySpec, parse_reply, shape_problems
from mu_llama.musicqa.sources import source_by_name
from mu_llama.musicqa.worker import reply_problems
from mu_llama.musicqa.writers.local import LocalWriter
from mu_llama.musicqa.writers.protocol import NothingToSay, load_prompts
from mu_llama.musicqa.writers.template import TemplateWriter
from tests.unit.musicqa import corpora

RICH = Track(
    "rich",
    tags={"instrument": ("piano", "violin"), "genre": ("jazz",), "mood": ("calm",), "tempo": ("slow tempo",),
          "other": ("no vocals",)},
)  # fmt: skip

TEXTS = ("description", "detailed_description", "heard", "inferred", "caption")
GERMAN = "Ein ruhiges Stück für Klavier, das langsam gespielt wird und traurig klingt."


def test_templates_are_true_varied_and_the_same_each_time(tmp_path: Path) -> None:
    tracks = list(source_by_name("musiccaps")(corpora.musiccaps(tmp_path, 60, audio=False)))
    writer = TemplateWriter(ReplySpec())
    descriptions, questions = set(), set()
    for track in tracks:
        assert isinstance(track, Track)
        reply = writer.compose(track)
        assert reply == TemplateWriter(ReplySpec()).compose(track)
        assert shape_problems(reply.to_dict(), ReplySpec()) == []
        assert reply_problems(reply, labels_of(track)) == []
        descriptions.add(reply.fixed[0])
        questions |= {pair.question for pair in reply.pairs}
        assert all(not re.search(r"\ba [aeio]|\ban [^aeiouR8hm]|  |[{}]", text) for _, text in reply.statements()), (
            reply
        )
    assert len(descriptions) > 55
    assert len(questions) > 20


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        ({"instrument": ("electric guitar", "drums")}, "an electric guitar"),
        ({"genre": ("waltz",), "mood": ("happy",)}, "waltz"),
        ({"other": ("strange hum",)}, '"strange hum"'),
        ({"tempo": ("fast tempo",)}, "fast"),
        ({"voice": ("choir",)}, "choir"),
    ],
)
def test_little_is_enough(tags: dict[str, tuple[str, ...]], part: str) -> None:
    reply = TemplateWriter(ReplySpec()).compose(Track("little", tags=tags))
    assert part in " ".join(text for _, text in reply.statements()).lower()
    assert all(text.strip() for _, text in reply.statements())


def test_nothing_is_not() -> None:
    with pytest.raises(NothingToSay, match="no labels and no caption"):
        TemplateWriter(ReplySpec()).compose(Track("bare"))


def test_another_attempt_is_worded_otherwise() -> None:
    writer = TemplateWriter(ReplySpec())
    assert len({writer.compose(RICH, attempt=attempt).fixed for attempt in range(8)}) > 4


@pytest.mark.parametrize(
    ("text", "message"),
    [("no braces", "no JSON object"), ('{"a": 1', "damaged or cut off"), ("[1]", "no JSON object")],
)
def test_what_is_not_json_is_damaged(text: str, message: str) -> None:
    with pytest.raises(Damaged, match=message):
        parse_reply(text)


def test_json_is_found_in_a_fence() -> None:
    assert parse_reply('Here:\n```json\n{"caption": "x {y}"}\n```') == {"caption": "x {y}"}


def good() -> dict[str, Any]:
    plain = copy.deepcopy(TemplateWriter(ReplySpec()).compose(RICH).to_dict())
    assert shape_problems(plain, ReplySpec()) == []
    assert reply_problems(Reply.from_dict(plain), labels_of(RICH)) == []
    return plain


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda plain: plain.pop("caption"), "caption is missing"),
        (lambda plain: plain.update(heard=7), "heard is missing or no text"),
        (lambda plain: plain["pairs"].pop(), "pairs holds 4; expected 5"),
        (lambda plain: plain["pairs"][0].pop("answer"), "pairs 1 has no answer"),
        (lambda plain: plain["choices"][0]["distractors"].pop(), "choices 1 has no 3 distractors"),
        (lambda plain: plain.update(choices="none"), "choices holds none; expected 2"),
    ],
)
def test_shapes(change: Any, problem: str) -> None:
    plain = good()
    change(plain)
    assert problem in " ".join(shape_problems(plain, ReplySpec()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda plain: plain.update(description="A jazz trumpet."), "description names trumpet"),
        (lambda plain: plain.update(heard="Based on the tags, a piano."), "heard speaks of its instructions"),
        (lambda plain: plain.update(heard="As an AI, I cannot listen."), "heard speaks of its instructions"),
        (lambda plain: plain.update(heard="Write plain, varied English in full sentences. No lists, no markup."),
         "speaks of its instructions"),
        (lambda plain: plain.update(inferred="Calm"), "fewer than 2 words"),
        (lambda plain: plain.update(caption="x" * 2000), "characters long"),
        (lambda plain: plain["pairs"][1].update(plain["pairs"][0]), "same question twice"),
        (lambda plain: plain["choices"][0].update(answer="trumpet solo"), "choices 1 names trumpet"),
        (lambda plain: plain["choices"][0].update(distractors=["violin", "a", "b"]), "takes violin for wrong"),
        (lambda plain: plain["choices"][0].update(distractors=["a", "A ", "b"]), "same option twice"),
        (lambda plain: plain.update(dict.fromkeys(TEXTS, GERMAN)), "is in de; expected en"),
    ],
)  # fmt: skip
def test_content(change: Any, problem: str) -> None:
    plain = good()
    change(plain)
    found = reply_problems(Reply.from_dict(plain), labels_of(RICH), prompt=load_prompts().system)
    assert problem in " ".join(found)


def test_prompts_can_be_replaced_and_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Write.")
    with pytest.raises(ConfigError, match=r"user\.txt: can't be read"):
        load_prompts(tmp_path)
    (tmp_path / "user.txt").write_text("About $facts for $price")
    with pytest.raises(ConfigError, match="'price' is no place that is filled"):
        load_prompts(tmp_path)
    (tmp_path / "user.txt").write_text("Write about it.")
    with pytest.raises(ConfigError, match=r"has no \$facts"):
        load_prompts(tmp_path)
    (tmp_path / "user.txt").write_text("Facts: $facts")
    messages = load_prompts(tmp_path).messages(RICH, ReplySpec())
    assert messages[1]["content"].startswith("Facts: Instruments: piano, violin\nGenre: jazz")
    assert load_prompts(tmp_path).sha256 != load_prompts().sha256


@pytest.fixture(scope="module")
def babbling_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a real vocabulary: it says anything at all."""
    folder = tmp_path_factory.mktemp("babble")
    source = provide_llama(SMOLLM2, home_folder())
    config = LlamaConfig(
        vocab_size=49152, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in source.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


class BriefReplySpec(ReplySpec):
    """Asks for texts of a twelfth of the length: a random model fills all that it may."""

    def schema(self) -> dict[str, Any]:
        def shortened(part: Any) -> Any:
            if isinstance(part, dict):
                return {name: value // 12 if name == "maxLength" else shortened(value) for name, value in part.items()}
            return part

        schema: dict[str, Any] = shortened(super().schema())
        return schema


def test_even_a_random_model_writes_valid_json(babbling_model: Path) -> None:
    reply_spec = BriefReplySpec(num_pairs=1, num_choices=1)
    writer = LocalWriter(str(babbling_model), load_prompts(), reply_spec, home=home_folder(), max_tokens=4000)
    written = asyncio.run(writer.write(RICH, attempt=0))
    assert shape_problems(written.reply, reply_spec) == [] or "no text" in str(
        shape_problems(written.reply, reply_spec)
    )
    assert set(written.reply) == set(json.loads(json.dumps(reply_spec.schema()))["required"])
    assert len(written.reply["pairs"]) == 1
    assert len(written.reply["choices"][0]["distractors"]) == 3


@pytest.mark.slow
def test_an_attempt_repeats_itself_and_another_differs(babbling_model: Path) -> None:
    reply_spec = ReplySpec(num_pairs=1, num_choices=1)
    writer = LocalWriter(str(babbling_model), load_prompts(), reply_spec, home=home_folder(), max_tokens=4000)
    first, again, other = (asyncio.run(writer.write(RICH, attempt=number)).reply for number in (0, 0, 1))
    assert again == first
    assert other != first


def test_a_reply_without_room_is_damaged(babbling_model: Path) -> None:
    writer = LocalWriter(str(babbling_model), load_prompts(), ReplySpec(), home=home_folder(), max_tokens=50)
    with pytest.raises(Damaged, match="cut off after 50 tokens"):
        asyncio.run(writer.write(RICH, attempt=0))


def test_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is no chat model"):
        LocalWriter(str(tmp_path), load_prompts(), ReplySpec(), home=home_folder())
