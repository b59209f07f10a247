"""Writes through any server that speaks the OpenAI chat API; the only door to its client."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mu_llama.errors import ConfigError
from mu_llama.musicqa.checks import parse_reply
from mu_llama.musicqa.prompting import Prompts
from mu_llama.musicqa.reply import Wanted
from mu_llama.musicqa.writers.pieces import write_in_pieces
from mu_llama.musicqa.writers.protocol import Damaged, Refused, Unavailable, Written
from mu_llama.records import Track

# A server that knows nothing of one is asked for the next.
_FORMATS = ("json_schema", "json_object", "text")
_UNKNOWN_FIELD = (400, 404, 413, 415, 422, 501)
_NO_USE_TRYING = (401, 403)
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class EndpointOptions:
    """Which server and model write, and how."""

    base_url: str
    """Address up to `/v1`."""
    model: str
    """As the server calls it."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server on this machine needs none."""
    num_at_once: int = 16
    """Most requests in flight."""
    num_retries: int = 8
    """How often a request is sent again after a time-out, 429 or a server's error; waits grow to 8 s."""
    timeout_s: float = 120.0
    """Longest wait for one reply."""
    temperature: float = 0.7
    """Of sampling."""
    max_tokens: int = 1600
    """Longest reply."""
    one_by_one: bool = False
    """Ask for the template writer's sentences in other words, one by one, for small models."""


class EndpointWriter:
    """A `Writer` behind an HTTP address.

    Args:
        options: which server.
        prompts: instructions.
        wanted: how much is written.
        seed: with a track's id and the attempt it seeds sampling, where the server knows seeds.

    Raises:
        ConfigError: if the client isn't installed, the address is none, or the key is absent.
    """

    name = "endpoint"

    def __init__(self, options: EndpointOptions, prompts: Prompts, wanted: Wanted, *, seed: int = 0) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError("this writer needs the OpenAI client; run: pip install 'mu-llama[musicqa]'") from error
        self._openai, self._options, self._prompts, self._wanted, self._seed = openai, options, prompts, wanted, seed
        self.num_at_once = options.num_at_once
        self._key = _key(options)
        self.identity: dict[str, Any] = {
            "writer": self.name, "base_url": without_credentials(options.base_url), "model": options.model,
            "temperature": options.temperature, "max_tokens": options.max_tokens, "seed": seed,
            "prompts_sha256": prompts.sha256, "one_by_one": options.one_by_one,
        }  # fmt: skip
        self._client: Any = None
        self._format = _FORMATS[0]
        self._has_answered = False

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Ask the server; see `Writer`."""
        digest = hashlib.sha256(f"{self._seed} {attempt} {track.id}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") >> 1
        if self._options.one_by_one:
            self._format = _FORMATS[-1]

            async def chat(messages: list[dict[str, str]]) -> tuple[str, int, int]:
                return _text_of(await self._completion(messages, seed))

            return await write_in_pieces(chat, track, self._wanted, attempt=attempt, seed=self._seed)
        text, read, written = _text_of(await self._completion(self._prompts.messages(track, self._wanted), seed))
        try:
            return Written(parse_reply(text), read, written)
        except Damaged as error:
            raise Damaged(str(error), prompt_tokens=read, completion_tokens=written) from error

    async def _completion(self, messages: list[dict[str, str]], seed: int) -> Any:
        self._client = self._client or self._open()
        tried = self._format
        while True:
            try:
                completion = await self._client.chat.completions.create(
                    model=self._options.model,
                    messages=messages,
                    temperature=self._options.temperature,
                    max_tokens=self._options.max_tokens,
                    seed=seed,
                    **_response_format(tried, self._wanted),
                )
            except self._openai.APIStatusError as error:
                tried = self._next_format(error, tried)
                continue
            except (self._openai.APIConnectionError, OSError) as error:
                raise Unavailable(f"{self.identity['base_url']} doesn't answer ({self._plain(error)})") from None
            except (self._openai.OpenAIError, ValueError) as error:
                raise Damaged(f"the server's reply can't be read ({self._plain(error)})") from None
            # What worked is tried first from now on; a refusal of one track alone changes nothing.
            self._format, self._has_answered = tried, True
            return completion

    def _open(self) -> Any:
        # Made where it is used: a client belongs to one event loop, and to one process.
        return self._openai.AsyncOpenAI(
            base_url=self._options.base_url,
            api_key=self._key,
            timeout=self._options.timeout_s,
            max_retries=self._options.num_retries,
        )

    def _next_format(self, error: Any, tried: str) -> str:
        """Give the response format to try after a server's refusal.

        Raises:
            Refused: if nothing will ever come.
            Unavailable: if it may come later.
            Damaged: if the server refuses this track alone.
        """
        told = f"{self.identity['base_url']} says {error.status_code} ({self._plain(error)})"
        if error.status_code in _NO_USE_TRYING:
            raise Refused(f"{told}; check the key in {self._options.key_variable}") from None
        if error.status_code not in _UNKNOWN_FIELD:
            raise Unavailable(told) from None
        if tried != _FORMATS[-1]:
            return _FORMATS[_FORMATS.index(tried) + 1]
        if self._has_answered:
            raise Damaged(told) from None
        raise Refused(f"{told}; check the address and the model {self._options.model!r}") from None

    def _plain(self, error: BaseException) -> str:
        """An error in one line, without the key or anything like one."""
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.replace(self._key, "[key]") if self._key else text
        text = re.sub(r"\b(?:sk|key|Bearer)[-_ ][\w*.-]{6,}", "[key]", text)
        return re.sub(r"//[^/@\s]+@", "//", text)[:_LONGEST_MESSAGE]


def without_credentials(url: str) -> str:
    """Drop user, password, query and fragment of an address.

    Raises:
        ConfigError: if it is none.

    Example:
        >>> without_credentials("https://me:secret@host.example:8000/v1?key=abc")
        'https://host.example:8000/v1'
    """
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the endpoint's address has no http://host; got {url.rpartition('@')[2][:80]!r}")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _key(options: EndpointOptions) -> str:
    without_credentials(options.base_url)
    key = os.environ.get(options.key_variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {options.key_variable} has letters that no key has; copy it again")
    if key:
        return key
    if _is_local(options.base_url):
        return "none"
    raise ConfigError(
        f"the key for {without_credentials(options.base_url)} is absent: {options.key_variable} is not set; put the "
        "key into that variable, or name another with --key-variable"
    )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def _response_format(form: str, wanted: Wanted) -> dict[str, Any]:
    if form == "json_schema":
        schema = {"name": "reply", "strict": True, "schema": wanted.schema()}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": "json_object"}} if form == "json_object" else {}


def _text_of(completion: Any) -> tuple[str, int, int]:
    """The text of a completion, and its tokens read and written."""
    try:
        text = completion.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise Damaged("the server's reply has no text")
    usage = completion.usage
    return text, getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0
