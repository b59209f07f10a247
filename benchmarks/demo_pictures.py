"""Take the pictures of docs/guide/chat-and-demo.md: light, dark and on a phone. Needs chromium.

Run: python -m benchmarks.demo_pictures
"""

from __future__ import annotations

import shutil

from playwright.sync_api import sync_playwright

from benchmarks.demo import finished, served
from benchmarks.measure import ROOT

CLIP = ROOT / "examples" / "audio" / "midnight-dance-cello.ogg"
QUESTIONS = ("What instrument is playing?", "Are there drums?")
KINDS = {"light": ("light", 1280, 1150), "dark": ("dark", 1280, 1150), "phone": ("light", 390, 844)}


def main() -> None:
    """Ask two questions and take a picture, three times."""
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (scheme, width, height) in KINDS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(f"{address}/?__theme={scheme}")
            page.wait_for_selector("#question textarea")
            page.set_input_files("#track input[type=file]", str(CLIP))
            page.wait_for_function("document.querySelector('#facts')?.innerText.includes('BPM')", timeout=120_000)
            for number, question in enumerate(QUESTIONS, start=1):
                page.fill("#question textarea", question)
                page.keyboard.press("Enter")
                finished(page, number)
            page.screenshot(path=str(ROOT / "docs" / "pictures" / f"demo-{name}.png"), full_page=name != "phone")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
