"""The demo in a real browser: Debian's chromium through Playwright. Slow: `make check-slow`."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

import mu_llama
from mu_llama.inference.results import Answer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[3]
CELLO = ROOT / "examples" / "audio" / "midnight-dance-cello.ogg"
ROCK = ROOT / "examples" / "audio" / "war-of-freedom.ogg"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_UNLABELLED = """
() => [...document.querySelectorAll('button, input:not([type=file]):not([type=hidden]), textarea, select, audio')]
    .filter(e => e.offsetParent !== null)
    .filter(e => !(e.getAttribute('aria-label') || e.title || e.innerText?.trim() || e.labels?.length
                   || e.getAttribute('aria-labelledby') || e.placeholder || e.querySelector('img[alt]:not([alt=""])')))
    .map(e => e.outerHTML.slice(0, 160))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium, then make check-slow"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="no playwright here: pip install playwright"),
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
    command += ["--most-minutes", "2", "--most-mb", "10", "--most-tracks", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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


def opened(browser: Browser, address: str, **more: Any) -> tuple[Page, list[str]]:
    """A visitor's page, and what goes wrong in it."""
    page, errors = browser.new_page(**{"viewport": {"width": 1280, "height": 1100}, **more}), list[str]()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#question textarea", timeout=60_000)
    return page, errors


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A visitor's page, in which nothing goes wrong."""
    page, errors = opened(browser, address)
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def rough_page(browser: Browser, address: str) -> Iterator[Page]:
    """One that is handed files that can't be played or uploaded, which the browser itself reports as errors."""
    page, _ = opened(browser, address)
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


def test_a_new_track_starts_a_new_conversation_and_buttons_ask(page: Page) -> None:
    upload(page, CELLO)
    ask(page, "What instrument is playing?")
    page.locator("#track button[aria-label=Clear], #track button[title=Clear]").first.click()
    page.wait_for_function("document.querySelector('#heard').innerText.trim() === ''", timeout=30_000)
    assert answers(page) == []
    upload(page, ROCK)
    page.get_by_role("button", name="Caption for text-to-music").click()
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=60_000)


def put(page: Page, path: Path) -> None:
    page.set_input_files("#track input[type=file]", str(path))


def test_questions_that_cannot_be_asked_are_toasts(page: Page) -> None:
    page.fill("#question textarea", "What is this?")
    page.keyboard.press("Enter")
    assert "upload, record or pick one" in toast(page)
    assert page.input_value("#question textarea") == "What is this?"
    upload(page, CELLO)
    page.fill("#question textarea", "   ")
    page.keyboard.press("Enter")
    assert "empty" in toast(page)
    assert page.is_visible("#chat"), "no error lies over the conversation"
    assert "cello" in ask(page, "What instrument is playing?").lower()


def test_files_that_cannot_be_heard_are_toasts_and_the_page_stays_usable(rough_page: Page, tmp_path: Path) -> None:
    page, rate = rough_page, 8000
    hiss = np.random.default_rng(0).normal(0, 0.1, rate * 130)
    (tmp_path / "notes.wav").write_text("these are words")
    (tmp_path / "notes.txt").write_text("these are words")
    soundfile.write(tmp_path / "silent.wav", np.zeros(rate * 3), rate)
    soundfile.write(tmp_path / "long.wav", hiss, rate)
    (tmp_path / "large.wav").write_bytes(b"RIFF" + bytes(12_000_000))
    (tmp_path / "huge.wav").write_bytes(b"RIFF" + bytes(24_000_000))
    for name, wanted in (
        ("notes.wav", "notes.wav: is text, not audio; give an audio file."),
        ("notes.txt", "notes.txt is no audio file; give a WAV, MP3, FLAC or the like."),
        ("silent.wav", "silent.wav: silent (peak below -80 dBFS); expected sound: check the recording."),
        ("long.wav", "long.wav lasts 2 minutes, the most is 2; cut it."),
        ("large.wav", "large.wav has 12 MB, the most is 10; cut or compress it."),
        ("huge.wav", "huge.wav has more than 10 MB; cut or compress it."),
    ):
        put(page, tmp_path / name)
        assert wanted in toast(page), name
    upload(page, CELLO)
    assert "cello" in ask(page, "What instrument is playing?").lower()


def test_a_draft_stays_while_an_answer_comes_and_questions_wait_their_turn(page: Page) -> None:
    upload(page, ROCK)
    for question in ("Describe the audio in detail", "Are there drums?"):
        page.fill("#question textarea", question)
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#question textarea').value === ''", timeout=5_000)
    page.fill("#question textarea", "a draft")
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 2", timeout=120_000)
    seen_texts(page)
    assert answers(page) == conversation(ROCK, "Describe the audio in detail", "Are there drums?")
    page.get_by_role("button", name="Caption for text-to-music").click()
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 3", timeout=120_000)
    assert page.input_value("#question textarea") == "a draft"


def test_an_example_is_picked_and_a_question_edited(page: Page) -> None:
    page.get_by_text(CELLO.name, exact=True).click()
    page.wait_for_function("document.querySelector('#heard')?.innerText.includes('Listened to')", timeout=120_000)
    ask(page, "Are there drums?")
    ask(page, "And a piano?")
    page.get_by_label("Edit", exact=True).first.click()
    page.locator("#chat textarea").first.fill("What instrument is playing?")
    page.get_by_label("Submit", exact=True).first.click()
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=60_000)
    assert seen_texts(page)[-1] == cli(CELLO, "What instrument is playing?")[0]
    assert "And a piano?" not in page.inner_text("#chat")


def test_a_track_that_others_pushed_out_is_a_toast(browser: Browser, address: str, page: Page) -> None:
    upload(page, CELLO)
    answer = ask(page, "What instrument is playing?")
    others = [opened(browser, address)[0] for _ in range(3)]
    for other in others:
        upload(other, ROCK)
    page.fill("#question textarea", "And drums?")
    page.keyboard.press("Enter")
    assert "was dropped, because newer tracks came; upload it again" in toast(page)
    assert answers(page) == [answer]
    for other in others:
        other.close()
    page.locator("#track button[aria-label=Clear], #track button[title=Clear]").first.click()
    page.wait_for_function("document.querySelector('#heard').innerText.trim() === ''", timeout=30_000)
    upload(page, CELLO)
    assert "cello" in ask(page, "What instrument is playing?").lower()


def test_who_waits_sees_a_position_in_the_queue(browser: Browser, address: str, page: Page) -> None:
    other, errors = opened(browser, address)
    upload(page, ROCK)
    upload(other, CELLO)
    page.fill("#question textarea", "Describe the audio in detail")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=60_000)
    other.fill("#question textarea", "What instrument is playing?")
    other.keyboard.press("Enter")
    other.wait_for_function("/queue: \\d+\\/\\d+/.test(document.querySelector('#chat').innerText)", timeout=30_000)
    other.wait_for_function(f"document.querySelectorAll('{BOTS}').length == 1", timeout=120_000)
    assert seen_texts(other)[-1] == cli(CELLO, "What instrument is playing?")[0]
    other.close()
    assert errors == []


def test_many_files(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.ogg").write_text("no sound")
    page.get_by_role("tab", name="Many files").click()
    page.set_input_files("#files input[type=file]", [str(CELLO), str(ROCK), str(tmp_path / "bad.ogg")])
    page.wait_for_function("document.querySelector('#files').innerText.includes('bad')", timeout=30_000)
    questions = ["What instruments do you hear?", "Are there drums?"]
    page.fill("#questions textarea", "\n".join(questions))
    page.click("#start")
    page.wait_for_function("document.querySelector('#progress').innerText.includes('3 of 3')", timeout=180_000)
    shown = page.inner_text("#answers")
    found = mu_llama.load("mini").ask_many([CELLO, ROCK], questions)
    written = [record.text for record in found if isinstance(record, Answer)]
    assert len(written) == 4
    assert all(text in shown for text in written)
    with page.expect_download(timeout=60_000) as saved:
        page.click("#download-jsonl")
    rows = [json.loads(line) for line in Path(saved.value.path()).read_text(encoding="utf-8").splitlines()]
    assert [row["answer"] for row in rows[:4]] == written
    assert [row["file"] for row in rows] == [CELLO.name] * 2 + [ROCK.name] * 2 + ["bad.ogg"] * 2
    assert all(row["error"] for row in rows[4:])
    with page.expect_download(timeout=60_000) as saved:
        page.click("#download-csv")
    table = list(csv.reader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row[0] for row in table[1:]] == [row["file"] for row in rows]
    with page.expect_download(timeout=60_000) as saved:
        page.click("#download-zip")
    with zipfile.ZipFile(saved.value.path()) as archive:
        assert archive.namelist() == [f"{CELLO.stem}.txt", f"{ROCK.stem}.txt"]
        assert rows[0]["answer"] in archive.read(f"{CELLO.stem}.txt").decode()
    assert page.evaluate(_UNLABELLED) == []


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
    page.get_by_role("button", name="Settings").click()
    page.wait_for_selector("#window", state="visible")
    upload(page, CELLO)
    page.wait_for_function("document.querySelector('#facts')?.innerText.includes('BPM')", timeout=120_000)
    assert page.evaluate(_UNLABELLED) == []


def test_a_phone_shows_the_conversation_below_the_track(browser: Browser, address: str) -> None:
    phone, errors = opened(browser, address, viewport={"width": 390, "height": 844})
    upload(phone, CELLO)
    ask(phone, "What instrument is playing?")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 392
    tops = [phone.locator(name).bounding_box()["y"] for name in ("#track", "#chat", "#picture")]  # type: ignore[index]
    assert tops == sorted(tops)
    phone.close()
    assert errors == []


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
    page.get_by_label("Dislike", exact=True).first.click()
    for _ in range(50):
        if len(likes.read_text().splitlines()) >= 2:
            break
        page.wait_for_timeout(200)
    assert json.loads(likes.read_text().splitlines()[-1])["liked"] is False
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
    page.wait_for_function("document.querySelector('#heard')?.innerText.includes('Listened to')", timeout=60_000)
    assert ask(page, "Is this music?")
    context.close()
