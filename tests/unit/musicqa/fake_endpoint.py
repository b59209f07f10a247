"""An OpenAI-compatible server on loopback that answers from the prompt's facts, slowly and badly if told so.

`python -m tests.unit.musicqa.fake_endpoint --port 0` prints its port; `--faults` mixes in hangs, 429, 500, cut
connections, and wrong or cut JSON. A prompt always gets the same text, whatever went wrong before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import queue
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mu_llama.labels.track import Track
from mu_llama.musicqa.reply import ReplySpec
from mu_llama.musicqa.writers.template import TemplateWriter

FORMATS = ["json_schema", "json_object", "text"]
ROOT = Path(__file__).parents[3]
CATEGORY = {
    "Genre": "genre",
    "Instruments": "instrument",
    "Voice": "voice",
    "Mood": "mood",
    "Tempo": "tempo",
    "Also": "other",
}


def saying(text: object) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}


ODD: dict[str, tuple[int, object]] = {
    "too-long": (400, {"error": {"message": "maximum context length exceeded"}}),
    "number": (200, saying('{"choices": 5, "pairs": {"a": 1}}')),
    "surrogate": (200, saying('{"description": "\\ud83d"}')),
    "deep": (200, saying('{"a":' + "[" * 100_000)),
    "no-message": (200, {"choices": [{"index": 0}]}),
    "null-choice": (200, {"choices": [None]}),
    "mapping": (200, {"choices": {"a": 1}}),
    "null-content": (200, saying(None)),
    "list": (200, [1, 2]),
    "html": (200, "<html>wrong address</html>"),
}
ONE_SENTENCE = "Say in other words: "
DRAFT = "A draft of what the model may say later."


def draft_of(reply: str) -> str:
    """A reply of the right shape that must never be taken: it stands in the reasoning."""
    return json.dumps({**json.loads(reply), "heard": DRAFT, "description": DRAFT}) if reply[0] == "{" else DRAFT


def thinking_of(reply: str) -> str:
    return f"The user wants {{JSON}} of a track. A draft: {draft_of(reply)} But that is {{not}} it yet."


def parts_of(reply: str) -> list[dict[str, object]]:
    thinking = [{"type": "text", "text": thinking_of(reply)}]
    return [{"type": "thinking", "thinking": thinking}, {"type": "text", "text": reply}]


# What servers put around the JSON that they were asked for; a prompt's reply to the message's content.
HABITS: dict[str, Callable[[str], object]] = {
    "think": lambda reply: f"<think>\n{thinking_of(reply)}\n</think>\n\n{reply}",
    "thinking": lambda reply: f"<thinking>{thinking_of(reply)}</thinking>{reply}",
    "twice": lambda reply: f"<think>{thinking_of(reply)}</think>{draft_of(reply)}<think>no</think>{reply}",
    "no-opening": lambda reply: f"{thinking_of(reply)}\n</think>\n\n{reply}",
    "mistral": lambda reply: f"[THINK]{thinking_of(reply)}[/THINK]{reply}",
    "command": lambda reply: f"<|START_THINKING|>{thinking_of(reply)}<|END_THINKING|>{reply}",
    "kimi": lambda reply: f"◁think▷{thinking_of(reply)}◁/think▷{reply}",
    "gpt-oss": lambda reply: (
        f"<|channel|>analysis<|message|>{thinking_of(reply)}<|end|><|start|>assistant<|channel|>final "
        f"<|constrain|>json<|message|>{reply}<|return|>"
    ),
    "gpt-oss without its marks": lambda reply: f"analysis{thinking_of(reply)}assistantfinal{reply}",
    "gemma": lambda reply: f"<|channel>thought\n{thinking_of(reply)}<channel|>{reply}",
    "draft in the open": lambda reply: f"{thinking_of(reply)} So:\n```json\n{reply}\n```",
    "fence": lambda reply: f"Here it is:\n```json\n{reply}\n```\nTell me {{more}} if you like.",
    "array": lambda reply: f"[{reply}]",
    "key": lambda reply: json.dumps({"result": json.loads(reply)}),
    "keys": lambda reply: json.dumps({"status": "ok", "data": {"replies": [json.loads(reply)]}}),
    "string": lambda reply: json.dumps(reply),
    "string under a key": lambda reply: json.dumps({"output": reply}),
    "parts": parts_of,
}
# What holds nothing but reasoning, though whole objects are in it; with how it ended.
UNFINISHED: dict[str, Callable[[str], tuple[dict[str, object], str]]] = {
    "unclosed": lambda reply: ({"content": f"<think>{thinking_of(reply)}"}, "stop"),
    "unclosed again": lambda reply: ({"content": f"<think>a</think>{reply}<think>{thinking_of(reply)}"}, "stop"),
    "unclosed mistral": lambda reply: ({"content": f"[THINK]{thinking_of(reply)}"}, "length"),
    "unclosed gpt-oss": lambda reply: ({"content": f"<|channel|>analysis<|message|>{thinking_of(reply)}"}, "length"),
    "cut without marks": lambda reply: ({"content": thinking_of(reply)}, "length"),
    "null": lambda reply: ({"content": None, "reasoning_content": thinking_of(reply)}, "length"),
    "empty": lambda reply: ({"content": "", "reasoning": draft_of(reply)}, "stop"),
    "parts of reasoning": lambda reply: ({"content": parts_of(reply)[:1]}, "length"),
    "nothing behind": lambda reply: ({"content": f"<think>{thinking_of(reply)}</think>"}, "stop"),
}
FAULTS = ("hang", "429", "500", "cut connection", "wrong JSON", "cut JSON", "no JSON body")


def reply_to(prompt: str, reply_spec: ReplySpec) -> str:
    """What a truthful model would write; a sentence to be said in other words stays as it is."""
    if prompt.startswith(ONE_SENTENCE):
        return prompt.removeprefix(ONE_SENTENCE)
    tags: dict[str, tuple[str, ...]] = {}
    caption = None
    for line in prompt.splitlines():
        heading, colon, values = line.partition(": ")
        if colon and heading in CATEGORY:
            tags[CATEGORY[heading]] = tuple(values.split(", "))
        elif heading == "Description":
            caption = values
    name = hashlib.sha256(prompt.encode()).hexdigest()
    track = Track(name, tags=tags, caption=caption)
    return json.dumps(TemplateWriter(reply_spec).compose(track).to_dict())


class Server:
    def __init__(
        self, *, latency_s: float = 0.0, fault_rate: float = 0.0, seed: int = 0, formats: list[str] = FORMATS,
        key: str | None = None, odd: str | None = None, habit: str | None = None,
        refusals: Mapping[str, tuple[int, object]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.odd, self.habit, self.refusals = odd, habit, refusals
        self.bodies: list[dict[str, Any]] = []
        self.latency_s, self.fault_rate, self.formats, self.key = latency_s, fault_rate, formats, key
        self.random = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.one(reader, writer):
                pass
        writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
        if self.key is not None and f"Bearer {self.key}" not in head:
            return await send(writer, 401, {"error": {"message": "Incorrect API key provided: sk-abcdef123456."}})
        self.bodies.append(body)
        for name, (status, content) in self.refusals.items():
            if name in body:
                await asyncio.sleep(self.latency_s)
                return await send(writer, status, content)
        form = body.get("response_format", {}).get("type", "text")
        if form not in self.formats:
            return await send(writer, 400, {"error": {"message": f"response_format {form} is not supported"}})
        fault = self.random.choice(FAULTS) if self.random.random() < self.fault_rate else ""
        await asyncio.sleep(3600 if fault == "hang" else self.latency_s)
        name, _, everyone = (self.odd or "").partition("/")
        if name and (everyone or "Track 1 " in body["messages"][-1]["content"]):
            status, content = ODD[name]
            return await send(writer, status, content)
        if fault in ("429", "500"):
            return await send(writer, int(fault), {"error": {"message": "busy"}}, more="retry-after-ms: 20\r\n")
        if fault == "no JSON body":
            return await send(writer, 200, "<html>gateway</html>")
        text = {
            "wrong JSON": '{"description": 3}',
            "cut JSON": reply_to(body["messages"][-1]["content"], ReplySpec())[:200],
        }.get(fault)
        content = reply_to(body["messages"][-1]["content"], ReplySpec()) if text is None else text
        message: dict[str, object] = {"content": content}
        finish_reason = "stop"
        if self.habit in HABITS:
            message = {"content": HABITS[self.habit](content)}
        elif self.habit is not None:
            message, finish_reason = UNFINISHED[self.habit](content)
        answer = {
            "id": "x", "object": "chat.completion", "created": 0, "model": body.get("model"),
            "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 300, "total_tokens": 700},
        }  # fmt: skip
        return await send(writer, 200, answer, cut=fault == "cut connection")


async def send(
    writer: asyncio.StreamWriter, status: int, content: object, *, more: str = "", cut: bool = False
) -> bool:
    payload = (content if isinstance(content, str) else json.dumps(content)).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + (payload[:50] if cut else payload))
    await writer.drain()
    return not cut


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--habit", help="what is put around the JSON, one of HABITS or UNFINISHED")
    parser.add_argument("--key")
    parser.add_argument("--odd", help="name of a strange body that every prompt with 'Track 1 ' gets, or all: NAME/all")
    options = parser.parse_args()
    server = Server(
        latency_s=options.latency, fault_rate=options.faults, seed=options.seed, formats=options.formats.split(","),
        key=options.key, odd=options.odd, habit=options.habit,
    )  # fmt: skip
    listening = await asyncio.start_server(server.serve, "127.0.0.1", options.port)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await listening.serve_forever()


@contextlib.contextmanager
def serving(server: Server, *, port: int = 0) -> Iterator[str]:
    """Run a server in a thread of this process; gives its address up to /v1. What it does may change meanwhile."""
    addresses: queue.Queue[str] = queue.Queue()
    loop = asyncio.new_event_loop()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        listening = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", port))
        addresses.put(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        loop.run_forever()
        listening.close()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield addresses.get(timeout=30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextlib.contextmanager
def running(*options: str) -> Iterator[str]:
    """Run a server in a process of its own; gives its address up to /v1."""
    line = [sys.executable, "-m", "tests.unit.musicqa.fake_endpoint", *options]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(main())
