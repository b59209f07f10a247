"""The demo's page: what stands where, and which of `chat`'s functions a control calls. The only door to gradio."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mu_llama.app.batch import FORMATS, HEADINGS, Row, write_rows
from mu_llama.app.callbacks import Callbacks, Message, sentence
from mu_llama.app.chat import CAPTION_QUESTION, Desk
from mu_llama.app.visit import Visit
from mu_llama.errors import MuLlamaError
from mu_llama.musicqa.reply import FIXED_QUESTIONS

_CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
footer {display: none !important}
#heard {font-size: 0.9em}
#picture img {image-rendering: auto; object-fit: fill; width: 100%}
@media (max-width: 640px) {.gradio-container {padding: 8px !important} #chat {height: 50vh !important}}
"""
_TITLE = "mu-llama: talk about a track"


@dataclass(frozen=True)
class Serving:
    """Where a page is served, and who may see it."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int | None = None
    """Port; None takes a free one from 7860 on."""
    share: bool = False
    """Whether a public address is made through gradio's servers."""
    auth: tuple[str, str] | None = None
    """Name and password that a visitor must give."""


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn this project's errors into toasts of one sentence."""

    def run(*values: Any) -> Any:
        try:
            return function(*values)
        except MuLlamaError as error:
            raise gr.Error(sentence(error), duration=8, print_exception=False) from error

    return run


def _told_on_the_way(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for functions that yield."""

    def run(*values: Any) -> Iterator[Any]:
        try:
            yield from function(*values)
        except MuLlamaError as error:
            raise gr.Error(sentence(error), duration=8, print_exception=False) from error

    return run


def _place(event: Any) -> int:
    """Which message an event is about."""
    index = event.index
    return int(index[0] if isinstance(index, (list, tuple)) else index)


def build_page(desk: Desk, *, examples: Sequence[Path] = ()) -> gr.Blocks:
    """Lay the page out over a desk."""
    page = Callbacks(desk, lambda text: gr.Warning(text, duration=8))
    blocks = gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, 24 * 3600))
    with blocks:
        gr.Markdown(f"# {_TITLE}\nUpload, record or pick a track, then ask. No other server hears it.")
        settings = _settings(desk)
        with gr.Tab("One track"):
            _one_track(page, examples, *settings)
        with gr.Tab("Many files"):
            _many_files(page, *settings)
    blocks.queue(default_concurrency_limit=1, max_size=64, api_open=False)
    return blocks


def _settings(desk: Desk) -> tuple[gr.Radio, list[gr.Slider]]:
    with gr.Accordion("Settings", open=False):
        window = gr.Radio(
            [("as the model was made", "auto"), ("the whole track", "full"), ("the first minute", "published")],
            value="auto", label="Seconds heard", elem_id="window",
        )  # fmt: skip
        sliders = [
            gr.Slider(0, 1.5, value=0, step=0.05, label="Temperature", info="0 takes the likeliest word."),
            gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="Sample among the likeliest words up to this."),
            gr.Slider(16, 512, value=256, step=16, label="Longest answer, in tokens"),
        ]
        if desk.listener.blend is not None:
            weight = desk.listener.blend.options.weight
            sliders.append(gr.Slider(0, 1, value=weight, step=0.05, label="Share of the index's neighbours"))
    return window, sliders


def _one_track(page: Callbacks, examples: Sequence[Path], window: gr.Radio, sliders: list[gr.Slider]) -> None:
    visit = gr.State(Visit(), delete_callback=lambda visit: page.desk.drop(visit.token))
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            audio = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label=_track_label(page.desk), elem_id="track",
                buttons=[],
            )  # fmt: skip
            if examples:
                gr.Examples([[str(path)] for path in examples], inputs=[audio], label="Examples")
            shown = _what_was_heard()
        with gr.Column(scale=3, min_width=300):
            chat = gr.Chatbot(
                label="Conversation", elem_id="chat", height=440, editable="user", buttons=["copy"], allow_tags=False,
                placeholder="Ask about the track, or press a question below.", render_markdown=False,
                feedback_options=("Like", "Dislike") if page.desk.keeps_likes else None,
            )  # fmt: skip
            question = gr.Textbox(
                label="Question", placeholder="What instruments do you hear?", submit_btn="Ask", max_length=2000,
                elem_id="question",
            )  # fmt: skip
            with gr.Row():
                stop = gr.Button("Stop", variant="stop", elem_id="stop", size="sm")
                clear = gr.Button("New conversation", elem_id="clear", size="sm")
            with gr.Row():
                buttons = [(gr.Button(text, size="sm", min_width=140), text) for text in FIXED_QUESTIONS]
                buttons.append((gr.Button("Caption for text-to-music", size="sm", min_width=140), CAPTION_QUESTION))
    asking = _asking(page, visit, question, chat, buttons, sliders)
    _listening(page, visit, [audio, window], shown, chat, asking)
    stop.click(lambda visit: visit.stop(), [visit], None, cancels=asking, queue=False)
    for trigger in (clear.click, chat.clear):
        # First the run is told, then the page: a word that is on its way changes nothing any more.
        trigger(_forget, [visit], [question, chat], cancels=asking, queue=False)


def _track_label(desk: Desk) -> str:
    return f"Track (up to {desk.limits.most_mb} MB and {desk.limits.most_minutes:g} minutes)"


def _what_was_heard() -> list[Any]:
    heard = gr.Markdown("", elem_id="heard")
    picture = gr.Image(
        label="Mel spectrogram (time to the right, pitch upwards)", elem_id="picture", interactive=False, buttons=[],
        height=200,
    )  # fmt: skip
    tags = gr.Label(label="What the encoder hears (its likeliest tags)", num_top_classes=8, show_heading=False)
    facts = gr.Dataframe(
        headers=["fact", "measured", "confidence"], label="Measured", interactive=False, elem_id="facts"
    )
    return [heard, tags, picture, facts]


def _forget(visit: Visit) -> tuple[str, list[Message]]:
    visit.forget()
    return "", []


def _listening(
    page: Callbacks, visit: gr.State, inputs: list[Any], shown: list[Any], chat: gr.Chatbot, asking: list[Any]
) -> None:
    """What a new track, or another window, sets off: no old answer goes on, all is heard and measured anew."""
    audio, window = inputs
    heard, tags, picture, facts = shown
    for trigger in (audio.change, window.change):
        trigger(lambda visit: visit.stop(), [visit], None, cancels=asking, queue=False)
        listening = trigger(
            _or_cleared(page), [audio, visit, window], [heard, tags, picture, chat, facts, audio, visit],
            show_progress_on=heard,
            concurrency_id="hear", trigger_mode="always_last",
        )  # fmt: skip
        listening.then(
            _or_skip(page.measure),
            [visit],
            [facts],
            show_progress_on=facts,
            concurrency_id="facts",
            trigger_mode="always_last",
        )


def _or_cleared(page: Callbacks) -> Callable[[str | None, Visit, Any], tuple[Any, ...]]:
    """Hear a file, and take one that can't be heard away, so that another can be dropped in its place."""

    def run(path: str | None, visit: Visit, window: Any) -> tuple[Any, ...]:
        shown = page.hear(path, visit, window)
        # The visit is given back, though it is the same: gradio deletes, and so drops, only what it was handed.
        return (*shown, None if path and visit.held is None else gr.skip(), visit)

    return run


def _or_skip(function: Callable[[Visit], Any]) -> Callable[[Visit], Any]:
    def run(visit: Visit) -> Any:
        found = function(visit)
        return gr.skip() if found is None else found

    return run


def _asking(
    page: Callbacks, visit: gr.State, question: gr.Textbox, chat: gr.Chatbot, buttons: list[tuple[gr.Button, str]],
    sliders: list[gr.Slider],
) -> list[Any]:  # fmt: skip
    """Everything that asks; gives the events, so that they can be cancelled."""
    given, spoken = [visit, *sliders], [question, chat]
    ask = _told_on_the_way(page.ask)
    # Asked while an answer is being written, a question waits its turn.
    asking: list[Any] = [
        question.submit(ask, [question, *given], spoken, concurrency_id="ask", trigger_mode="multiple")
    ]
    for button, text in buttons:
        asked = [gr.State(text), *given]
        asking.append(button.click(ask, asked, spoken, concurrency_id="ask", trigger_mode="multiple"))
    asking.append(chat.retry(_regenerating(page), given, spoken, concurrency_id="ask"))
    asking.append(chat.edit(_editing(page), given, spoken, concurrency_id="ask"))
    if page.desk.keeps_likes:
        chat.like(_judging(page), [visit], None)
    return asking


def _regenerating(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.RetryData, *values: Any) -> Iterator[Any]:
        yield from _told_on_the_way(page.regenerate)(_place(event), *values)

    return _known(run, gr.RetryData)


def _editing(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.EditData, *values: Any) -> Iterator[Any]:
        yield from _told_on_the_way(page.edit)(_place(event), str(event.value), *values)

    return _known(run, gr.EditData)


def _judging(page: Callbacks) -> Callable[..., None]:
    def run(event: gr.LikeData, visit: Visit) -> None:
        _told(page.judge)(_place(event), event.liked if isinstance(event.liked, bool) else None, visit)

    return _known(run, gr.LikeData)


def _known(run: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """Let gradio see what the first parameter is; it doesn't read annotations that are text."""
    run.__annotations__ = {"event": kind}
    return run


def _many_files(page: Callbacks, window: gr.Radio, sliders: list[gr.Slider]) -> None:
    visit, rows, run = gr.State(Visit()), gr.State([]), gr.State(0)
    files = gr.File(file_count="multiple", label="Files", elem_id="files")
    questions = gr.Textbox(
        "Describe the audio", lines=3, label="Questions, one a line", max_length=4000, elem_id="questions"
    )
    with gr.Row():
        start = gr.Button("Ask about all", variant="primary", elem_id="start")
        stop = gr.Button("Stop", variant="stop", elem_id="stop-batch")
    progress = gr.Markdown("", elem_id="progress")
    table = gr.Dataframe(
        headers=list(HEADINGS), type="array", label="Answers", wrap=True, interactive=False, elem_id="answers"
    )
    with gr.Row():
        names = {"csv": "CSV", "jsonl": "JSONL", "zip": "Zip of text files"}
        downloads = [
            gr.DownloadButton(f"Download {names[form]}", interactive=False, elem_id=f"download-{form}")
            for form in FORMATS
        ]
    given, filled = [run, files, questions, visit, window, *sliders], [table, rows, progress]
    started = start.click(
        lambda visit: [visit.begin(), *[gr.DownloadButton(interactive=False)] * len(FORMATS)], [visit],
        [run, *downloads], queue=False,
    )  # fmt: skip
    running = started.then(_told_on_the_way(page.batch), given, filled, concurrency_id="batch")
    running.then(_prepared, [rows], downloads)
    stop.click(lambda visit: visit.stop(), [visit], None, queue=False)


def _prepared(rows: list[Row]) -> list[Any]:
    """The three files to download, where there are answers."""
    if not rows:
        return [gr.DownloadButton(interactive=False)] * len(FORMATS)
    folder = Path(tempfile.mkdtemp(prefix="answers-", dir=_downloads()))
    return [gr.DownloadButton(value=str(write_rows(rows, folder, form)), interactive=True) for form in FORMATS]


def _downloads() -> Path:
    """A folder that goes when the process ends."""
    if not _FOLDERS:
        _FOLDERS.append(tempfile.TemporaryDirectory(prefix="mu-llama-demo-"))
    return Path(_FOLDERS[0].name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def serve(blocks: gr.Blocks, serving: Serving, *, most_mb: int, examples: Sequence[Path] = ()) -> None:
    """Serve a page until it is interrupted or terminated; then uploads are deleted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is somewhat too large comes in and is refused by the desk, which says what to do; gradio refuses the rest.
    blocks.launch(
        server_name=serving.host, server_port=serving.port, share=serving.share, auth=serving.auth, css=_CSS,
        max_file_size=f"{2 * most_mb}mb", allowed_paths=[str(path.parent) for path in examples], show_error=True,
        run_history=False, footer_links=[], quiet=False, theme=gr.themes.Soft(),
    )  # fmt: skip
