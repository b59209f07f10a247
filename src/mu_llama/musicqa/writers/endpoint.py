"""Write through any server that speaks the OpenAI chat API; the only door to its client."""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import Damaged, ReplySpec, parse_reply, without_thinking
from mu_llama.musicqa.writers.chat_servers import (
    Completion,
    RequestParameters,
    is_about_length,
    read_completion,
    without_secrets,
)
from mu_llama.musicqa.writers.protocol import Prompts, Refused, Unavailable, WriterSpec, Written, seed_digest
from mu_llama.musicqa.writers.template import write_in_pieces

_UNKNOWN_FIELD = (400, 404, 413, 415, 422, 501)
_NAMES_PARAMETERS = (400, 422)
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
        self._openai, self._spec, self._prompts, self._reply_spec = openai, spec, prompts, spec.reply_spec
        self.num_at_once = spec.num_at_once
        self._base_url, self._key = spec.base_url, _key(spec.base_url, spec.key_variable)
        self._shown_url = without_credentials(spec.base_url)
        self._client: Any = None
        self._parameters = RequestParameters(
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            formats=[None] if spec.one_by_one else _response_formats(spec.reply_spec),
        )
        self._has_answered = False

    async def write(self, track: Track, *, attempt: int) -> Written:
        """Ask the server; see `Writer`."""
        seed = int.from_bytes(seed_digest(self._spec.seed, attempt, track)[:4], "big") >> 1
        if self._spec.one_by_one:

            async def chat(messages: list[dict[str, str]]) -> tuple[str, int, int]:
                completion = await self._completion(messages, seed)
                try:
                    text = without_thinking(completion.text)
                except Damaged as error:
                    raise completion.damaged(str(error)) from error
                return text, completion.prompt_tokens, completion.completion_tokens

            return await write_in_pieces(chat, track, self._reply_spec, attempt=attempt, seed=self._spec.seed)
        completion = await self._completion(self._prompts.messages(track, self._reply_spec), seed)
        try:
            reply = parse_reply(completion.text, self._reply_spec, is_cut=completion.is_cut)
        except Damaged as error:
            raise completion.damaged(str(error)) from error
        return Written(reply, completion.prompt_tokens, completion.completion_tokens)

    async def _completion(self, messages: list[dict[str, str]], seed: int) -> Completion:
        self._client = self._client or self._open()
        form = self._parameters.form
        while True:
            sent = self._parameters.of_request(seed, form)
            try:
                completion = await self._client.chat.completions.create(
                    model=self._spec.model, messages=messages, **sent
                )
            except self._openai.APIStatusError as error:
                form = self._form_after(error, sent, seed, form)
                continue
            except (self._openai.APIConnectionError, OSError) as error:
                raise Unavailable(f"{self._shown_url} doesn't answer ({self._plain(error)})") from None
            except (self._openai.OpenAIError, ValueError) as error:
                raise Damaged(f"the server's reply can't be read ({self._plain(error)})") from None
            # What worked is tried first from now on; a refusal of one track alone changes nothing.
            self._parameters.form, self._has_answered = form, True
            return read_completion(completion)

    def _open(self) -> Any:
        # Made where it is used: a client belongs to one event loop, and to one process.
        try:
            return self._openai.AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._key or "none",
                timeout=self._spec.timeout_s,
                max_retries=self._spec.num_retries,
                http_client=_client_without_proxy(self._openai) if _is_loopback(self._base_url) else None,
            )
        except (ImportError, ValueError, OSError) as error:  # a proxy of another kind, certificates that aren't there
            raise Refused(
                f"the proxy or certificates of this environment can't be used ({self._plain(error)})"
            ) from None

    def _form_after(self, error: Any, sent: dict[str, Any], seed: int, form: int) -> int:
        """Learn from a server's refusal, and give the response format to try with what was learned.

        Raises:
            Refused: if nothing will ever come.
            Unavailable: if it may come later.
            Damaged: if the server refuses this track alone.
        """
        said = _words_of(error)
        refusal = f"{self._shown_url} says {error.status_code} ({self._plain(said)})"
        if error.status_code in _NO_USE_TRYING:
            raise Refused(f"{refusal}; check the key in {self._spec.key_variable}") from None
        if error.status_code not in _UNKNOWN_FIELD:
            raise Unavailable(refusal) from None
        parameters = self._parameters
        if error.status_code in _NAMES_PARAMETERS and parameters.learn(error.body, said, sent, form):
            latest = max(form, parameters.form)
            if parameters.of_request(seed, latest) != sent:
                return latest
        following = parameters.next_form(form)
        if following is not None and not (self._has_answered and form == parameters.form):
            return max(following, parameters.form)
        if self._has_answered or is_about_length(said):
            raise Damaged(refusal) from None
        raise Refused(f"{refusal}; check the address and the model {self._spec.model!r}") from None

    def _plain(self, error: BaseException | str) -> str:
        """An error in one line, without the key or anything like one."""
        text = " ".join(str(error).split()) or type(error).__name__
        return without_secrets(text, self._key)[:_LONGEST_MESSAGE]


def _words_of(error: Any) -> str:
    """All that a server says of a refusal; the client leaves out what isn't in OpenAI's form."""
    said, body = str(error), error.body
    return said if body is None or str(body) in said else f"{said} - {body}"


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


def _key(base_url: str, variable: str) -> str | None:
    """The key for an address; None for a server on this network that needs none."""
    shown = without_credentials(base_url)
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {variable} has letters that no key has; copy it again")
    if key:
        return key
    if _is_local(base_url):
        return None
    raise ConfigError(
        f"the key for {shown} is absent: {variable} is not set; put the key into that variable, or name another with "
        "--key-variable"
    )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return _is_loopback(url)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _client_without_proxy(openai: Any) -> Any:
    """An HTTP client that reaches servers on this machine itself, whatever proxy the environment names."""
    certificates = os.environ.get("SSL_CERT_FILE")
    verify = ssl.create_default_context(cafile=certificates) if certificates else True
    return openai.DefaultAsyncHttpxClient(trust_env=False, verify=verify)


def _response_formats(reply_spec: ReplySpec) -> list[dict[str, Any] | None]:
    """Ways of asking for JSON; a server that knows nothing of one is asked for the next."""
    schema = {"name": "reply", "strict": True, "schema": reply_spec.schema()}
    return [{"type": "json_schema", "json_schema": schema}, {"type": "json_object"}, None]
