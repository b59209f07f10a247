"""Writes through any server that speaks the OpenAI chat API; the only door to its client."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mu_llama.errors import ConfigError
from mu_llama.musicqa.checks import parse_reply
from mu_llama.musicqa.prompting import Prompts
from mu_llama.musicqa.reply import Wanted
from mu_llama.musicqa.writers.pieces import write_in_pieces
from mu_llama.musicqa.writers.protocol import Damaged, Refused, Unavailable, Written
from mu_llama.musicqa.writers.spec import WriterSpec
from mu_llama.records import Track

# A server that knows nothing of one is asked for the next.
_FORMATS = ("json_schema", "json_object", "text")
_UNKNOWN_FIELD = (400, 404, 413, 415, 422, 501)
_NO_USE_TRYING = (401, 403)
_LONGEST_MESSAGE = 300


class EndpointWriter:
    """A `Writer` behind an HTTP address.

    Args:
        spec: which server and model; its seed, with a track's id and the attempt, seeds sampling where the server
            knows seeds.
        prompts: instructions.

    Raises:
        ConfigError: if the client isn't installed, the address is none, or the key is absent.
    """

    name = "endpoint"

    def __init__(self, spec: WriterSpec, prompts: Prompts) -> None:
        if not spec.base_url or not spec.model:
            missing = "--model" if spec.base_url else "--base-url"
            raise ConfigError(f"the endpoint writer needs {missing}: the server's address up to /v1, and its model")
        try:
            import openai
        except ImportError as error:
            raise ConfigError("this writer needs the OpenAI client; run: pip install 'mu-llama[musicqa]'") from error
        self._openai, self._spec, self._prompts, self._wanted = openai, spec, prompts, spec.wanted
        self.num_at_once = spec.num_at_once
        self._base_url, self._key = spec.base_url, _key(spec.base_url, spec.key_variable)
        self._shown_url = without_credentials(spec.base_url)
        self._client: Any = None
        self._format = _FORMATS[0]
        self._has_answered = False

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Ask the server; see `Writer`."""
        digest = hashlib.sha256(f"{self._spec.seed} {attempt} {track.id}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") >> 1
        if self._spec.one_by_one:
            self._format = _FORMATS[-1]

            async def chat(messages: list[dict[str, str]]) -> tuple[str, int, int]:
                return _text_of(await self._completion(messages, seed))

            return await write_in_pieces(chat, track, self._wanted, attempt=attempt, seed=self._spec.seed)
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
                    model=self._spec.model,
                    messages=messages,
                    temperature=self._spec.temperature,
                    max_tokens=self._spec.max_tokens,
                    seed=seed,
                    **_response_format(tried, self._wanted),
                )
            except self._openai.APIStatusError as error:
                tried = self._next_format(error, tried)
                continue
            except (self._openai.APIConnectionError, OSError) as error:
                raise Unavailable(f"{self._shown_url} doesn't answer ({self._plain(error)})") from None
            except (self._openai.OpenAIError, ValueError) as error:
                raise Damaged(f"the server's reply can't be read ({self._plain(error)})") from None
            # What worked is tried first from now on; a refusal of one track alone changes nothing.
            self._format, self._has_answered = tried, True
            return completion

    def _open(self) -> Any:
        # Made where it is used: a client belongs to one event loop, and to one process.
        return self._openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key,
            timeout=self._spec.timeout_s,
            max_retries=self._spec.num_retries,
        )

    def _next_format(self, error: Any, tried: str) -> str:
        """Give the response format to try after a server's refusal.

        Raises:
            Refused: if nothing will ever come.
            Unavailable: if it may come later.
            Damaged: if the server refuses this track alone.
        """
        told = f"{self._shown_url} says {error.status_code} ({self._plain(error)})"
        if error.status_code in _NO_USE_TRYING:
            raise Refused(f"{told}; check the key in {self._spec.key_variable}") from None
        if error.status_code not in _UNKNOWN_FIELD:
            raise Unavailable(told) from None
        if tried != _FORMATS[-1]:
            return _FORMATS[_FORMATS.index(tried) + 1]
        if self._has_answered:
            raise Damaged(told) from None
        raise Refused(f"{told}; check the address and the model {self._spec.model!r}") from None

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


def _key(base_url: str, variable: str) -> str:
    shown = without_credentials(base_url)
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {variable} has letters that no key has; copy it again")
    if key:
        return key
    if _is_local(base_url):
        return "none"
    raise ConfigError(
        f"the key for {shown} is absent: {variable} is not set; put the key into that variable, or name another with "
        "--key-variable"
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
