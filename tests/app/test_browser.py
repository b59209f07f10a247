"""The demo in a real browser: Debian's chromium through Playwright. Slow: `make check-slow`."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import mu_llama

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
CELLO = ROOT / "examples" / "audio" / "midnight-dance-cello.ogg"
ROCK = ROOT / "examples" / "audio" / "war-of-freedom.ogg"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_UNLABELLED = """
() => [...document.querySelectorAll('button, input:not([type=file]):not([type=hidden]), textarea, select, audio')]
    .filter(e => e.offsetParent !== null)
    .filter(e => !(e.getAttribute('aria-label') || e.title || e.innerText?.trim() || e.labels?.length
                   || e.getAttribute('aria-labelledby') || e.placeholder))
    .map(e => e.outerHTML.slice(0, 160))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium, then make check-slow"),
]


@pytest.fixture(scope="module")
def likes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("likes") / "likes.jsonl"


@pytest.fixture(scope="module")
def address(likes: Path) -> Iterator[str]:
    """The demo, served with limits that a test can reach."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mu-llama"), "demo", "--port", str(port), "--likes", str(likes)]
    process = subprocess.Popen(
        [*command, "--most-minutes", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for _ in range(240):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        beeps = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]  # from a microphone
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *beeps])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    page.errors = []  # type: ignore[attr-defined]
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.goto(address)
    page.wait_for_selector("#question textarea", timeout=60_000)
    yield page
    page.close()


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#track input[type=file]", str(path))
    page.wait_for_function(
        f"document.querySelector('#heard')?.innerText.includes({json.dumps(path.name)})", timeout=120_000
    )


BOTS = "#chat .message.bot:not(.pending)"


def answers(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(BOTS).all_inner_texts()]


def ask(page: Page, question: str) -> str:
    before = len(answers(page))
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length > {before}", timeout=120_000)
    text, still = "", 0
    while still < 20:  # five seconds without a new word
        page.wait_for_timeout(250)
        now = answers(page)[-1]
        still, text = (still + 1, text) if now == text and now else (0, now)
    return text


def toast(page: Page) -> str:
    page.wait_for_selector(".toast-body", timeout=60_000)
    text = page.locator(".toast-body").last.inner_text()
    page.wait_for_selector(".toast-body", state="detached", timeout=30_000)
    return text


def cli(path: Path, *questions: str) -> list[str]:
    command = [str(Path(sys.executable).parent / "mu-llama"), "ask", str(path), "--json"]
    for question in questions:
        command += ["-q", question]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line)["answer"] for line in done.stdout.splitlines()]


def conversation(path: Path, *questions: str) -> list[str]:
    chat = mu_llama.load("mini").chat(path)
    return [chat.ask(question).text for question in questions]


def seen_texts(page: Page) -> list[str]:
    """All states that the last answer was seen in, frame by frame, until it stays for eight seconds."""
    script = """(selector) => new Promise(done => {
      const seen = []; let last = performance.now();
      const look = () => {
        const all = document.querySelectorAll(selector);
        const text = all.length ? all[all.length - 1].innerText.trim() : '';
        if (text && text !== seen[seen.length - 1]) { seen.push(text); last = performance.now(); }
        if (seen.length && performance.now() - last > 8000) done(seen); else requestAnimationFrame(look);
      };
      look();
    })"""
    return list(page.evaluate(script, BOTS))


def test_answers_stream(page: Page) -> None:
    upload(page, ROCK)
    page.fill("#question textarea", "Describe the audio in detail")
    page.keyboard.press("Enter")
    texts = seen_texts(page)
    assert len(texts) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == cli(ROCK, "Describe the audio in detail")[0]


def test_upload_ask_and_follow_up(page: Page) -> None:
    upload(page, CELLO)
    first = ask(page, "What instrument is playing?")
    assert first == cli(CELLO, "What instrument is playing?")[0]
    assert "cello" in first.lower()
    second = ask(page, "And drums?")
    assert second == conversation(CELLO, "What instrument is playing?", "And drums?")[1]
    facts = page.inner_text("#facts")
    assert re.search(r"\d+ BPM", facts)
    assert page.locator("#picture img").count() == 1
    assert not page.errors, page.errors  # type: ignore[attr-defined]


def test_a_new_track_starts_a_new_conversation_and_buttons_ask(page: Page) -> None:
    upload(page, CELLO)
    ask(page, "What instrument is playing?")
    page.locator("#track button[aria-label=Clear], #track button[title=Clear]").first.click()
    page.wait_for_function("document.querySelector('#heard').innerText.trim() === ''", timeout=30_000)
    assert answers(page) == []
    upload(page, ROCK)
    page.get_by_role("button", name="Caption for text-to-music").click()
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=60_000)


def test_errors_are_toasts_and_the_page_stays_usable(page: Page, tmp_path: Path) -> None:
    page.fill("#question textarea", "What is this?")
    page.keyboard.press("Enter")
    assert "upload, record or pick one" in toast(page)
    (tmp_path / "notes.wav").write_text("these are words")
    page.set_input_files("#track input[type=file]", str(tmp_path / "notes.wav"))
    assert "notes.wav" in toast(page)
    upload(page, CELLO)
    page.fill("#question textarea", "   ")
    page.keyboard.press("Enter")
    assert "empty" in toast(page)
    assert "cello" in ask(page, "What instrument is playing?").lower()


def test_many_files(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.ogg").write_text("no sound")
    page.get_by_role("tab", name="Many files").click()
    page.set_input_files("#files input[type=file]", [str(CELLO), str(ROCK), str(tmp_path / "bad.ogg")])
    page.wait_for_function("document.querySelector('#files').innerText.includes('bad')", timeout=30_000)
    page.fill("#questions textarea", "What instruments do you hear?\nAre there drums?")
    page.click("#start")
    page.wait_for_function("document.querySelector('#progress').innerText.includes('3 of 3')", timeout=180_000)
    shown = page.inner_text("#answers")
    for answer in cli(ROCK, "What instruments do you hear?", "Are there drums?"):
        assert answer in shown
    with page.expect_download(timeout=60_000) as saved:
        page.click("#download-jsonl")
    rows = [json.loads(line) for line in Path(saved.value.path()).read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == [CELLO.name] * 2 + [ROCK.name] * 2 + ["bad.ogg"] * 2
    assert all(row["error"] for row in rows[4:])


def test_labels_keyboard_and_width(browser: Browser, page: Page, address: str) -> None:
    assert page.evaluate(_UNLABELLED) == []
    assert page.title()
    assert page.evaluate("document.documentElement.lang")
    page.focus("#question textarea")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || ''")
        )
    assert {"Stop", "New conversation", "Describe the audio"} <= reached
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(address)
    phone.wait_for_selector("#question textarea", timeout=60_000)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 392
    phone.close()


def test_stop_ends_an_answer(page: Page) -> None:
    upload(page, ROCK)
    page.fill("#question textarea", "Describe the audio in detail")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=60_000)
    page.click("#stop")
    page.wait_for_timeout(500)
    text = answers(page)
    page.wait_for_timeout(2500)
    assert answers(page) == text
    whole = cli(ROCK, "Describe the audio in detail")[0]
    assert whole.startswith(text[0])
    assert whole != text[0], "it ended by itself before it was stopped"
    assert ask(page, "Are there drums?").lower().startswith("yes")


def test_regenerate_judge_and_clear(page: Page, likes: Path) -> None:
    upload(page, CELLO)
    first = ask(page, "What instrument is playing?")
    page.get_by_label("Like", exact=True).first.click()
    for _ in range(50):
        if likes.exists() and likes.read_text():
            break
        page.wait_for_timeout(200)
    row = json.loads(likes.read_text().splitlines()[-1])
    assert (row["question"], row["answer"], row["liked"]) == ("What instrument is playing?", first, True)
    page.get_by_label(re.compile("retry", re.IGNORECASE)).last.click()
    page.wait_for_timeout(500)
    assert seen_texts(page)[-1] == first  # greedy: the same again
    assert len(answers(page)) == 1
    page.click("#clear")
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 0", timeout=30_000)


def test_record(browser: Browser, address: str) -> None:
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#question textarea", timeout=60_000)
    page.get_by_label("Record audio").click()
    page.locator("#track .record-button").click()
    page.wait_for_timeout(4000)
    page.locator("#track .stop-button:visible").first.click()
    page.wait_for_function("document.querySelector('#heard')?.innerText.includes('Heard')", timeout=60_000)
    assert ask(page, "Is this music?")
    context.close()
