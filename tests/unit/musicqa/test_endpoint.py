"""The endpoint writer against what chat servers really do: reasoning, wrappings, refused parameters, proxies."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import Damaged, ReplySpec, parse_reply, shape_problems, without_thinking
from mu_llama.musicqa.worker import Rules, write_track
from mu_llama.musicqa.writers.chat_servers import refused_parameter, without_secrets
from mu_llama.musicqa.writers.endpoint import EndpointWriter
from mu_llama.musicqa.writers.protocol import Refused, WriterSpec, Written, load_prompts
from tests.unit.musicqa.fake_endpoint import DRAFT, HABITS, UNFINISHED, Server

T = TypeVar("T")
TRACK = Track("track", tags={"instrument": ("piano", "violin"), "genre": ("jazz",), "mood": ("calm",)})
Refusals = dict[str, tuple[int, object]]


def with_writer(server: Server, use: Callable[[EndpointWriter], Awaitable[T]], **settings: Any) -> T:
    """Run a server and a writer that talks to it in one event loop."""

    async def run() -> T:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        spec = WriterSpec("endpoint", "m", url, num_retries=0, **settings)
        writer = EndpointWriter(spec, load_prompts())
        try:
            return await use(writer)
        finally:
            if writer._client is not None:
                await writer._client.close()
            listening.close()

    return asyncio.run(run())


def write_one(server: Server, **settings: Any) -> Written:
    return with_writer(server, lambda writer: writer.write(TRACK, attempt=0), **settings)


def written_tracks(server: Server, count: int) -> list[Written]:
    """Write about tracks, all at once."""

    async def use(writer: EndpointWriter) -> list[Written]:
        return await asyncio.gather(*(writer.write(TRACK, attempt=number) for number in range(count)))

    return with_writer(server, use)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return dict(write_one(Server()).reply)


@pytest.mark.parametrize("habit", HABITS)
def test_what_servers_put_around_a_reply_changes_nothing(habit: str, plain: dict[str, Any]) -> None:
    assert write_one(Server(habit=habit)).reply == plain


@pytest.mark.parametrize("habit", UNFINISHED)
def test_reasoning_alone_is_no_reply(habit: str) -> None:
    """However whole the drafts in it: it is asked for again, and rejected with the reason in the end."""
    server = Server(habit=habit)
    outcome = with_writer(server, lambda writer: write_track(writer, TRACK, Rules(num_attempts=2)))
    assert outcome.reply is None
    assert outcome.failed is None
    assert len(server.bodies) == outcome.num_damaged == 4
    assert outcome.completion_tokens == 4 * 300
    (reason,) = outcome.reasons
    expected = ["reasoning", "no JSON object", "draft"]
    assert any(words in reason for words in expected)
    if UNFINISHED[habit]("{}")[1] == "length":
        assert "--max-tokens" in reason


def test_a_text_alone_loses_its_reasoning_too(plain: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"one_by_one": True, "reply_spec": ReplySpec(1, 1)}
    reply = write_one(Server(habit="think"), **settings).reply
    assert "think" not in json.dumps(reply)
    assert DRAFT not in json.dumps(reply)
    with pytest.raises(Damaged, match="reasoning has no end"):
        write_one(Server(habit="unclosed"), **settings)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("plain", "plain"),
        ("<think></think>a", "a"),
        ("<THINK >b</THINK>a", "a"),
        ("<seed:think>b</seed:think>a", "a"),
        ("<think>he said <think> twice</think>a", "a"),
        ("<|begin_of_thought|>b<|end_of_thought|>a", "a"),
        ("<|channel|>final<|message|>a<|return|>", "a"),
        ("a < b and c > d", "a < b and c > d"),
        ("analysis of the piece", "analysis of the piece"),
    ],
)
def test_without_thinking(text: str, answer: str) -> None:
    assert without_thinking(text) == answer


def test_the_last_object_that_fits_counts() -> None:
    good = dict(write_one(Server()).reply)
    other = {**good, "caption": "Another caption of it."}
    both = f"First {json.dumps(other)} then {json.dumps(good)} and {{}} or {json.dumps({'caption': 3})}"
    assert parse_reply(both, ReplySpec()) == good
    assert parse_reply(json.dumps([other, good]), ReplySpec()) == good
    short = {**good, "pairs": good["pairs"][:2]}
    assert shape_problems(parse_reply(json.dumps({"result": short}), ReplySpec()), ReplySpec()) == [
        "pairs holds 2; expected 5"
    ]
    # Cut off by the limit of tokens: whole alone at the beginning or end, but not amid other words.
    assert parse_reply(json.dumps(good) + " I hope that this", ReplySpec(), is_cut=True) == good
    assert parse_reply("Let me see. ```json\n" + json.dumps(good) + "\n```", ReplySpec(), is_cut=True) == good
    with pytest.raises(Damaged, match="may be a draft"):
        parse_reply(f"Perhaps {json.dumps(good)}. No, rather {{", ReplySpec(), is_cut=True)


def test_many_braces_take_no_time() -> None:
    with pytest.raises(Damaged, match="damaged or cut off"):
        parse_reply('{"a":' * 200_000, ReplySpec())


def openai_error(message: str, param: str | None = None, code: str | None = None) -> object:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


USE_ANOTHER = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
ONLY_DEFAULT = (
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) is supported."
)
EXTRA = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
REASONING_MODEL: Refusals = {
    "max_tokens": (400, openai_error(USE_ANOTHER, "max_tokens", "unsupported_parameter")),
    "temperature": (400, openai_error(ONLY_DEFAULT, "temperature", "unsupported_value")),
}


@pytest.mark.parametrize(
    ("refusals", "absent", "present", "told"),
    [
        (
            REASONING_MODEL,
            {"max_tokens", "temperature"}, {"max_completion_tokens", "seed"}, ["max_tokens", "temperature"],
        ),
        ({"seed": (422, EXTRA)}, {"seed"}, {"max_tokens", "temperature", "response_format"}, ["seed"]),
        ({"seed": (400, {"error": "property 'seed' is unsupported"})}, {"seed"}, {"temperature"}, ["seed"]),
        ({"temperature": (400, openai_error("temperature must be 1"))}, {"temperature"}, {"seed"}, ["temperature"]),
        (
            {name: (400, openai_error(f"unknown field {name}")) for name in ("max_tokens", "max_completion_tokens")},
            {"max_tokens", "max_completion_tokens"}, {"seed"}, ["max_tokens", "max_completion_tokens"],
        ),
        (
            {"response_format": (400, openai_error("Invalid parameter", "response_format"))},
            {"response_format"}, {"seed"}, ["json_schema", "json_object"],
        ),
        ({"response_format": (400, "<html>Bad Request</html>")}, {"response_format"}, {"seed"}, []),
    ],
)  # fmt: skip
def test_a_refused_parameter_is_learned_once(
    refusals: Refusals, absent: set[str], present: set[str], told: list[str]
) -> None:
    """Also with many requests in flight: none fails, and later ones are right at once."""
    server = Server(refusals=refusals, latency_s=0.02)

    async def use(writer: EndpointWriter) -> int:
        await asyncio.gather(*(writer.write(TRACK, attempt=number) for number in range(64)))
        first = len(server.bodies)
        await writer.write(TRACK, attempt=64)
        return len(server.bodies) - first

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert with_writer(server, use) == 1
    messages = [str(warning.message) for warning in caught if "refuses" in str(warning.message)]
    assert len(messages) == len(told)
    assert all(name in message for name, message in zip(told, messages, strict=True))
    assert not absent & server.bodies[-1].keys()
    assert present <= server.bodies[-1].keys()
    if "max_completion_tokens" in present:
        assert server.bodies[-1]["max_completion_tokens"] == server.bodies[0]["max_tokens"]


VLLM_LENGTH = (
    "'max_tokens' or 'max_completion_tokens' is too large: 1600. This model's maximum context length is 2048 tokens "
    "and your request has 900 input tokens (1600 > 2048 - 900)."
)


@pytest.mark.parametrize("message", ["the model is not loaded", VLLM_LENGTH, "the image is not supported"])
def test_a_refusal_of_something_else_is_told_in_the_servers_words(message: str) -> None:
    server = Server(refusals={"messages": (400, openai_error(message))})
    with pytest.raises((Refused, Damaged)) as caught:
        write_one(server)
    assert message[:150] in str(caught.value)
    assert all({"max_tokens", "temperature", "seed"} <= body.keys() for body in server.bodies)


def test_a_refusal_of_one_track_stays_that_of_one(plain: dict[str, Any]) -> None:
    server = Server()

    async def use(writer: EndpointWriter) -> Written:
        await writer.write(TRACK, attempt=0)
        server.refusals = {"messages": (400, openai_error("the prompt may not be answered"))}
        with pytest.raises(Damaged, match="may not be answered"):
            await writer.write(TRACK, attempt=0)
        server.refusals = {}
        return await writer.write(TRACK, attempt=0)

    assert with_writer(server, use).reply == plain
    assert [body["response_format"]["type"] for body in server.bodies] == ["json_schema"] * 3


@pytest.mark.parametrize(
    ("body", "text", "name"),
    [
        ({"param": "response_format.json_schema"}, "Invalid schema", "response_format"),
        ({"param": "messages"}, "temperature is only a word here", "temperature"),
        (None, "Unrecognized request argument supplied: seed", "seed"),
        (None, 'json: unknown field "max_completion_tokens"', "max_completion_tokens"),
        (None, "a song about temperature and seed", None),
        (None, "max_tokens must be less than or equal to 1024", None),
        (None, "max_tokens isn't supported; the maximum is set by max_completion_tokens", "max_tokens"),
    ],
)  # fmt: skip
def test_refused_parameter(body: object, text: str, name: str | None) -> None:
    assert refused_parameter(body, text) == name


KEY = "opaqueKEYvalue9876wxyz"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"Incorrect API key provided: {KEY[:4]}...{KEY[-4:]}.",
        f"Incorrect API key provided: {KEY[:2]}********{KEY[-4:]}.",
        f"the key begins with {KEY[:8]}",
        f'{{"headers": {{"Authorization": "Bearer {KEY}"}}}}',
        "Authorization: Basic b3BhcXVlS0VZ",
        "got sk-abc...xyz",
        "x-api-key=b3BhcXVlS0VZ",
        "http://me:b3BhcXVlS0VZ@host/v1",
    ],
)
def test_keys_are_never_shown(text: str) -> None:
    shown = without_secrets(text, KEY)
    for part in (KEY[:4], KEY[-4:], "b3BhcXVl", "abc...xyz", "Bearer o"):
        assert part not in shown


@pytest.mark.parametrize("text", ["Unexpected token < at 3", "max_tokens: 1600", "none of the skeletons are here ..."])
def test_what_is_no_key_stays(text: str) -> None:
    assert without_secrets(text, KEY) == text
    assert without_secrets(text, None) == text


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_server_on_this_machine_is_reached_past_the_proxy(
    variable: str, proxy: str, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, proxy)
    assert write_one(Server()).reply == plain


def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    writer = EndpointWriter(WriterSpec("endpoint", "m", "http://10.0.0.1:9/v1", num_retries=0), load_prompts())
    with pytest.raises(Refused, match="proxy"):
        asyncio.run(writer.write(TRACK, attempt=0))
