"""The demo's page: its layout, which callback each control calls, and how it is served. The only import of gradio."""

from __future__ import annotations

import html
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mu_llama.app.assets import CSS, EMPTY_THE_BOX, plain_toasts
from mu_llama.app.batch import FORMATS, HEADINGS, Row, readable, save_all
from mu_llama.app.callbacks import Callbacks, Message
from mu_llama.app.service import CAPTION_QUESTION, DemoService
from mu_llama.app.session import Visit
from mu_llama.musicqa.reply import FIXED_QUESTIONS

_TITLE = "mu-llama: talk about a track"


def _toast(text: str) -> None:
    # A toast is HTML, and names of files are the visitor's.
    gr.Warning(html.escape(text), duration=8)


def _place(event: Any) -> int:
    """Which message an event is about."""
    index = event.index
    return int(index[0] if isinstance(index, (list, tuple)) else index)


def build_page(desk: DemoService, *, examples: Sequence[Path] = ()) -> gr.Blocks:
    """Lay the page out over a desk."""
    page = Callbacks(desk, _toast, unchanged=gr.skip)
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


def _settings(desk: DemoService) -> tuple[gr.Radio, list[gr.Slider]]:
    with gr.Accordion("Settings", open=False):
        window = gr.Radio(
            [("as the model was made", "auto"), ("the whole track", "full"), ("the first minute", "published")],
            value=desk.window, label="Seconds heard", elem_id="window",
            info="Another choice hears the track anew and begins a new conversation.",
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
    with gr.Row(elem_id="room"):
        with gr.Column(elem_id="track-side", min_width=0):
            audio = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label=_track_label(page.desk), elem_id="track",
                buttons=[],
            )  # fmt: skip
            if examples:
                gr.Examples([[str(path)] for path in examples], inputs=[audio], label="Examples")
            heard = gr.Markdown("", elem_id="heard")
        with gr.Column(elem_id="talk-side", min_width=0):
            talk = _talk(page.desk)
        with gr.Column(elem_id="heard-side", min_width=0):
            shown = [heard, *_what_was_heard()]
    asking = _asking(page, visit, talk, sliders)
    _listening(page, visit, [audio, window], shown, talk.chat, asking)
    talk.stop.click(lambda visit: visit.stop(), [visit], None, cancels=asking, queue=False)
    for trigger in (talk.clear.click, talk.chat.clear):
        # First the run is told, then the page: a word that is on its way changes nothing any more.
        trigger(_forget, [visit], [talk.chat], cancels=asking, queue=False)


@dataclass(frozen=True)
class _Talk:
    """The controls of a conversation."""

    chat: gr.Chatbot
    question: gr.Textbox
    stop: gr.Button
    clear: gr.Button
    ready: list[tuple[gr.Button, str]]
    """Buttons, and what each asks."""


def _talk(desk: DemoService) -> _Talk:
    chat = gr.Chatbot(
        label="Conversation", elem_id="chat", height=440, editable="user", buttons=["copy"], allow_tags=False,
        placeholder="Ask about the track, or press a question below.", render_markdown=False,
        feedback_options=("Like", "Dislike") if desk.keeps_likes else None,
    )  # fmt: skip
    question = gr.Textbox(
        label="Question", placeholder="What instruments do you hear?", submit_btn="Ask", max_length=2000,
        elem_id="question",
    )  # fmt: skip
    with gr.Row():
        stop = gr.Button("Stop", variant="stop", elem_id="stop", size="sm")
        clear = gr.Button("New conversation", elem_id="clear", size="sm")
    with gr.Row():
        ready = [(gr.Button(text, size="sm", min_width=140), text) for text in FIXED_QUESTIONS]
        ready.append((gr.Button("Caption for text-to-music", size="sm", min_width=140), CAPTION_QUESTION))
    return _Talk(chat, question, stop, clear, ready)


def _track_label(desk: DemoService) -> str:
    return f"Track (up to {desk.limits.most_mb} MB and {desk.limits.most_minutes:g} minutes)"


def _what_was_heard() -> list[Any]:
    picture = gr.Image(
        label="Mel spectrogram (time to the right, pitch upwards)", elem_id="picture", interactive=False, buttons=[],
        height=200, alt_text="Mel spectrogram of the track",
    )  # fmt: skip
    tags = gr.Label(label="What the encoder hears (its likeliest tags)", num_top_classes=8, show_heading=False)
    facts = gr.Dataframe(
        headers=["fact", "measured", "confidence"], label="Measured", interactive=False, elem_id="facts"
    )
    return [tags, picture, facts]


def _forget(visit: Visit) -> list[Message]:
    visit.forget()
    return []


def _listening(
    page: Callbacks, visit: gr.State, inputs: list[Any], shown: list[Any], chat: gr.Chatbot, asking: list[Any]
) -> None:
    """What a new track, or another window, sets off: the old one goes at once, then all is heard and measured."""
    audio, window = inputs
    heard, tags, picture, facts = shown
    everything = [heard, tags, picture, chat, facts]
    for trigger in (audio.change, window.change):
        expected = trigger(page.expect, [audio, visit], everything, cancels=asking, queue=False, show_progress="hidden")
        listening = expected.then(
            _or_taken_away(page), [audio, visit, window], [*everything, audio, visit], show_progress_on=heard,
            concurrency_id="hear", trigger_mode="multiple",
        )  # fmt: skip
        listening.then(
            page.guard(page.measure), [visit], [facts], show_progress_on=facts, concurrency_id="facts",
            trigger_mode="multiple",
        )  # fmt: skip


def _or_taken_away(page: Callbacks) -> Callable[[str | None, Visit, Any], Any]:
    """Hear a file, and take one that can't be heard away, so that another can be dropped in its place."""

    def run(path: str | None, visit: Visit, window: Any) -> Any:
        shown = page.hear(path, visit, window)
        if shown is None:
            return gr.skip()
        # The visit is given back, though it is the same: gradio deletes, and so drops, only what it was handed.
        return (*shown, None if path and visit.held is None else gr.skip(), visit)

    return run


def _asking(page: Callbacks, visit: gr.State, talk: _Talk, sliders: list[gr.Slider]) -> list[Any]:
    """Everything that asks; gives the events, so that they can be cancelled."""
    given, chat = [visit, *sliders], [talk.chat]
    ask = page.guard_stream(page.ask)
    # Asked while an answer is being written, a question waits its turn.
    waits: dict[str, Any] = {"concurrency_id": "ask", "trigger_mode": "multiple"}
    boxed = [talk.question, *given]
    asking: list[Any] = [
        talk.question.submit(_asking_from_the_box(page), boxed, [talk.question, *chat], js=EMPTY_THE_BOX, **waits)
    ]
    for button, text in talk.ready:
        asking.append(button.click(ask, [gr.State(text), *given], chat, **waits))
    asking.append(talk.chat.retry(_regenerating(page), given, chat, concurrency_id="ask"))
    asking.append(talk.chat.edit(_editing(page), given, chat, concurrency_id="ask"))
    if page.desk.keeps_likes:
        talk.chat.like(_judging(page), [visit], None)
    return asking


def _asking_from_the_box(page: Callbacks) -> Callable[..., Iterator[Any]]:
    """Ask what was written; what can't be asked goes back into the box."""

    def run(question: str, *given: Any) -> Iterator[Any]:
        went_well = False
        with page.errors_as_toasts():
            for messages in page.ask(question, *given):
                yield gr.skip(), messages
            went_well = True
        if not went_well:
            yield readable(question), gr.skip()

    return run


def _regenerating(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.RetryData, *values: Any) -> Iterator[Any]:
        yield from page.guard_stream(page.regenerate)(_place(event), *values)

    return _known(run, gr.RetryData)


def _editing(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.EditData, *values: Any) -> Iterator[Any]:
        yield from page.guard_stream(page.edit)(_place(event), str(event.value), *values)

    return _known(run, gr.EditData)


def _judging(page: Callbacks) -> Callable[..., None]:
    def run(event: gr.LikeData, visit: Visit) -> None:
        page.guard(page.judge)(_place(event), event.liked if isinstance(event.liked, bool) else None, visit)

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
    running = started.then(page.guard_stream(page.batch), given, filled, concurrency_id="batch")
    running.then(_prepared, [rows], downloads)
    stop.click(lambda visit: visit.stop(), [visit], None, queue=False)


def _prepared(rows: list[Row]) -> list[Any]:
    """The three files to download, where there are answers."""
    if not rows:
        return [gr.DownloadButton(interactive=False)] * len(FORMATS)
    return [gr.DownloadButton(value=path, interactive=True) for path in save_all(rows)]


def serve(blocks: gr.Blocks, serving: Serving, *, most_mb: int, examples: Sequence[Path] = ()) -> None:
    """Serve a page until it is interrupted or terminated; then uploads are deleted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reach_past_proxies(serving.host)
    # What is somewhat too large comes in and is refused by the desk, which says what to do; gradio refuses the rest.
    blocks.launch(
        server_name=serving.host, server_port=serving.port, share=serving.share, auth=serving.auth,
        max_file_size=f"{2 * most_mb}mb", allowed_paths=[str(path.parent) for path in examples], show_error=True,
        run_history=False, footer_links=[], quiet=False, theme=gr.themes.Soft(),
        css=CSS, js=plain_toasts(most_mb),
    )  # fmt: skip


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_PROXY = ("no_proxy", "NO_PROXY")


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


def reach_past_proxies(host: str) -> None:
    """Keep this process from asking a proxy for itself: gradio looks whether its own page is there.

    Only the hosts of this machine are added to `no_proxy`; all others go through the proxy as before.

    Args:
        host: the address that is listened at.
    """
    # Lower case goes first where both are set, so that what only one of them names must not be lost.
    value = next((os.environ[name] for name in _NO_PROXY if os.environ.get(name)), "")
    hosts = [entry.strip() for entry in value.split(",") if entry.strip()]
    if "*" in hosts:
        return
    hosts += [own for own in (*_LOOPBACK, host) if own not in hosts]
    os.environ.update(dict.fromkeys(_NO_PROXY, ",".join(hosts)))
