"""The demo in a browser: how soon a first word comes, and whether eight visitors get the answers that `ask` gives.

Needs chromium (Debian: apt-get install chromium) and the package playwright, which `make test` installs.
Run: python -m benchmarks.demo
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import soundfile
from playwright.sync_api import Browser, Page, sync_playwright

import mu_llama
from benchmarks.measure import CLIP, COMMAND, ROOT, alternate, medians, write_result

QUESTION, FOLLOW_UP = "Describe the audio in detail", "Are there drums?"
ASKED = ("What instruments do you hear?", "Are there drums?", "And a piano?")
RUNS, SESSIONS = 7, 8
TYPING_S = 3
_PATIENCE_MS = 300_000
# Not the bubble that gradio shows while a question waits.
_BOTS = "#chat .message.bot:not(.pending)"
# Resolves to the milliseconds from pressing Enter to the first word of the answer. Woken by changes of the page:
# looking at every frame would have the browser draw them all, on the cores that compute the answer.
_FIRST_WORD = """
(selector) => new Promise((done, failed) => {
  setTimeout(() => failed(new Error('no answer after five minutes')), 300000);
  const before = document.querySelectorAll(selector).length;
  document.querySelector('#question textarea').addEventListener('keydown', () => {
    const start = performance.now();
    const look = new MutationObserver(() => {
      const all = document.querySelectorAll(selector);
      if (all.length > before && all[all.length - 1].textContent.trim()) {
        look.disconnect();
        done(performance.now() - start);
      }
    });
    look.observe(document.querySelector('#chat'), {childList: true, subtree: true, characterData: true});
  }, {once: true});
})
"""


@contextmanager
def served() -> Iterator[str]:
    """The demo on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [str(COMMAND), "demo", "--port", address.rpartition(":")[2]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the demo ended: {process.stderr.read().decode() if process.stderr else ''}")
            try:
                urllib.request.urlopen(address, timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def opened(browser: Browser, address: str, clip: Path) -> Page:
    """A browser session of its own, whose track was encoded and measured."""
    page = browser.new_context().new_page()
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector("#question textarea")
    page.set_input_files("#track input[type=file]", str(clip))
    page.wait_for_function("name => document.querySelector('#heard')?.innerText.includes(name)", arg=clip.name)
    page.wait_for_function("document.querySelector('#facts')?.innerText.includes('BPM')")
    return page


def _type(page: Page, question: str) -> None:
    page.fill("#question textarea", question)
    page.focus("#question textarea")


def first_word_on_page(page: Page, question: str = QUESTION, *, said: int = 0) -> float:
    """Seconds from Enter to the first word; behind so many answers, or in a new conversation."""
    if not said and page.locator(_BOTS).count():
        page.click("#clear")
    page.wait_for_function("([s, n]) => document.querySelectorAll(s).length === n", arg=[_BOTS, said])
    _type(page, question)
    page.evaluate(f"window.firstWord = ({_FIRST_WORD})({_BOTS!r}); null")
    page.keyboard.press("Enter")
    seconds = float(page.evaluate("window.firstWord")) / 1000
    finished(page, said + 1)
    return seconds


def first_words_of_a_session(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds from Enter to the first word, of a first question about a new track and of one that follows it."""
    page = opened(browser, address, CLIP)
    page.wait_for_timeout(1000 * TYPING_S)
    seconds = first_word_on_page(page), first_word_on_page(page, FOLLOW_UP, said=1)
    page.context.close()
    return seconds


def first_word_of_ask() -> float:
    """Seconds from the end of a first answer of one process to the first word of its second."""
    command = [str(COMMAND), "ask", str(CLIP), "-q", "Are there drums?", "-q", QUESTION]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    lines, start = 0, 0.0
    while lines < 3:  # heading, answer, heading; the second question is asked as soon as its heading stands
        character = process.stdout.read(1)
        if not character:
            raise RuntimeError("ask ended without two answers")
        if character == b"\n":
            lines, start = lines + 1, time.perf_counter()
    process.stdout.read(1)
    seconds = time.perf_counter() - start
    process.stdout.read()
    process.wait()
    return seconds


_PROCESS = """
import sys, mu_llama
listener, (clip, other, *questions) = mu_llama.load("mini"), sys.argv[1:]
listener.ask(other, questions[0])
chat = listener.chat(clip)
print(*(chat.ask(question).timings.first_token_s for question in questions))
"""


def first_words_of_process() -> tuple[float, float]:
    """The same in a warm process without a page: from an encoded track, or a first answer, to the next first word."""
    other = next(path for path in CLIP.parent.glob("*.ogg") if path != CLIP)
    command = [sys.executable, "-c", _PROCESS, str(CLIP), str(other), QUESTION, FOLLOW_UP]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    first, second = map(float, done.stdout.split())
    return first, second


def first_word_of_command() -> float:
    """Seconds from starting the command to its first word, of a track that was encoded before."""
    start = time.perf_counter()
    process = subprocess.Popen([str(COMMAND), "ask", str(CLIP), "-q", QUESTION], stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    process.stdout.read(1)
    seconds = time.perf_counter() - start
    process.stdout.read()
    process.wait()
    return seconds


def finished(page: Page, count: int) -> str:
    """The last answer, once nothing was added to it for five seconds."""
    page.wait_for_function("([s, n]) => document.querySelectorAll(s).length >= n", arg=[_BOTS, count])
    text, still = "", 0
    while still < 20:
        page.wait_for_timeout(250)
        now = page.locator(_BOTS).all_inner_texts()[-1].strip()
        still, text = (still + 1, text) if now == text and now else (0, now)
    return text


def clips_in(folder: Path) -> list[Path]:
    """As many different clips as there are sessions: the examples, and halves of them."""
    clips = sorted((ROOT / "examples" / "audio").glob("*.ogg"))
    for clip in list(clips):
        samples, rate = soundfile.read(clip)
        half = folder / f"{clip.stem}-half.wav"
        soundfile.write(half, samples[len(samples) // 2 :], rate)
        clips.append(half)
    return clips[:SESSIONS]


def sessions_at_once(browser: Browser, address: str, clips: Sequence[Path]) -> list[list[str]]:
    """Every visitor asks its three questions, all at the same time."""
    pages = [opened(browser, address, clip) for clip in clips]
    answers_by_page: list[list[str]] = [[] for _ in pages]
    for number, question in enumerate(ASKED, start=1):
        for page in pages:
            _type(page, question)
            page.keyboard.press("Enter")
        for answers, page in zip(answers_by_page, pages, strict=True):
            answers.append(finished(page, number))
    for page in pages:
        page.context.close()
    return answers_by_page


def answers_of_ask(clip: Path) -> list[str]:
    """The same conversation without a page."""
    conversation = mu_llama.load("mini").chat(clip)
    return [conversation.ask(question).text for question in ASKED]


def first_words(browser: Browser, address: str) -> dict[str, list[float]]:
    """Seconds to the first word, in turns."""
    page, pairs = opened(browser, address, CLIP), dict[str, list[float]]()

    def first(name: str, take: Callable[[], tuple[float, float]]) -> float:
        first_s, follow_up = take()
        pairs.setdefault(f"{name}_follow_up", []).append(follow_up)
        return first_s

    values = alternate(
        RUNS,
        page_first=lambda: first("page", lambda: first_words_of_a_session(browser, address)),
        process_first=lambda: first("process", first_words_of_process),
        page_another=lambda: first_word_on_page(page),
        ask_another=first_word_of_ask,
        command=first_word_of_command,
    )
    page.context.close()
    return {**values, **{name: taken[1:] for name, taken in pairs.items()}}  # as `alternate` leaves the first round out


def measure() -> dict[str, Any]:
    """Both figures."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise SystemExit("no chromium here; run: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        values = first_words(browser, address)
        clips = clips_in(Path(folder))
        on_page = sessions_at_once(browser, address, clips)
        browser.close()
        expected = [answers_of_ask(clip) for clip in clips]
    middle = medians(values)
    pairs = [pair for rows in zip(on_page, expected, strict=True) for pair in zip(*rows, strict=True)]
    return {
        "what": "seconds to the first word. Of the first question about a track that was just encoded, and of one that "
        "follows it: on the page from Enter, three seconds after the track was encoded, and in a warm process. Of a "
        "second question about the track, without the first before it: on the page and in a running `ask`. Of `ask` "
        "from its start, about a track that was encoded before",
        "median_s": middle,
        "ratios": {
            "first": round(middle["page_first"] / middle["process_first"], 3),
            "follow_up": round(middle["page_follow_up"] / middle["process_follow_up"], 3),
            "another": round(middle["page_another"] / middle["ask_another"], 3),
            "command": round(middle["page_another"] / middle["command"], 3),
        },
        "runs_s": values,
        "sessions": len(clips),
        "answers": len(pairs),
        "answers_equal": sum(one == other for one, other in pairs),
        "different": [pair for pair in pairs if pair[0] != pair[1]],
    }


if __name__ == "__main__":
    write_result("demo", measure())
