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
from mu_llama.app.batch import FORMATS, HEADINGS, TableRow, save_all
from mu_llama.app.callbacks import Callbacks, Message
from mu_llama.app.service import DemoService
from mu_llama.app.session import DemoSession
from mu_llama.files import without_surrogates
from mu_llama.text.prompts import CAPTION_QUESTIONS, FIXED_QUESTIONS, TEXT_TO_MUSIC_QUESTION

_TITLE = "mu-llama: talk about a track"


def _toast(text: str) -> None:
    # A toast is HTML, and names of files come from users.
    gr.Warning(html.escape(text), duration=8)


def _message_index(event: Any) -> int:
    """Index of the message that an event is about."""
    index = event.index
    return int(index[0] if isinstance(index, (list, tuple)) else index)


def build_page(service: DemoService, *, examples: Sequence[Path] = ()) -> gr.Blocks:
    """Build the page of a service."""
    page = Callbacks(service, _toast, unchanged=gr.skip)
    blocks = gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, 24 * 3600))
    with blocks:
        gr.Markdown(f"# {_TITLE}\nUpload, record or pick a track, then ask. No other server gets it.")
        settings = _settings(service)
        with gr.Tab("One track"):
            _one_track(page, examples, *settings)
        with gr.Tab("Many files"):
            _many_files(page, *settings)
    blocks.queue(default_concurrency_limit=1, max_size=64, api_open=False)
    return blocks


def _settings(service: DemoService) -> tuple[gr.Radio, list[gr.Slider]]:
    with gr.Accordion("Settings", open=False):
        window = gr.Radio(
            [("as the model was made", "auto"), ("the whole track", "full"), ("the first minute", "published")],
            value=service.listener.window, label="Seconds used", elem_id="window",
            info="Another choice encodes the track again and begins a new conversation.",
        )  # fmt: skip
        sliders = [
            gr.Slider(0, 1.5, value=0, step=0.05, label="Temperature", info="0 takes the likeliest word."),
            gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="Sample among the likeliest words up to this."),
            gr.Slider(16, 512, value=256, step=16, label="Longest answer, in tokens"),
        ]
        if service.listener.blend is not None:
            weight = service.listener.blend.options.weight
            sliders.append(gr.Slider(0, 1, value=weight, step=0.05, label="Share of the index's neighbours"))
    return window, sliders


def _one_track(page: Callbacks, examples: Sequence[Path], window: gr.Radio, sliders: list[gr.Slider]) -> None:
    session = gr.State(DemoSession(), delete_callback=lambda session: page.service.drop(session.token))
    with gr.Row(elem_id="room"):
        with gr.Column(elem_id="track-side", min_width=0):
            audio = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label=_track_label(page.service), elem_id="track",
                buttons=[],
            )  # fmt: skip
            if examples:
                gr.Examples([[str(path)] for path in examples], inputs=[audio], label="Examples")
            summary = gr.Markdown("", elem_id="heard")
        with gr.Column(elem_id="talk-side", min_width=0):
            talk = _talk(page.service)
        with gr.Column(elem_id="details-side", min_width=0):
            shown = [summary, *_details()]
    asking = _wire_questions(page, session, talk, sliders)
    _wire_tracks(page, session, [audio, window], shown, talk.chat, asking)
    talk.stop.click(lambda session: session.stop(), [session], None, cancels=asking, queue=False)
    for trigger in (talk.clear.click, talk.chat.clear):
        # The run is superseded before the page changes, so that a token on its way changes nothing.
        trigger(_forget, [session], [talk.chat], cancels=asking, queue=False)


@dataclass(frozen=True)
class _Talk:
    """The controls of a conversation."""

    chat: gr.Chatbot
    question: gr.Textbox
    stop: gr.Button
    clear: gr.Button
    ready: list[tuple[gr.Button, str]]
    """Buttons with their questions."""


def _talk(service: DemoService) -> _Talk:
    chat = gr.Chatbot(
        label="Conversation", elem_id="chat", height=440, editable="user", buttons=["copy"], allow_tags=False,
        placeholder="Ask about the track, or press a question below.", render_markdown=False,
        feedback_options=("Like", "Dislike") if service.stores_likes else None,
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
        ready.append((gr.Button("Caption for text-to-music", size="sm", min_width=140), TEXT_TO_MUSIC_QUESTION))
    return _Talk(chat, question, stop, clear, ready)


def _track_label(service: DemoService) -> str:
    return f"Track (up to {service.limits.max_mb} MB and {service.limits.max_minutes:g} minutes)"


def _details() -> list[Any]:
    picture = gr.Image(
        label="Mel spectrogram (time to the right, pitch upwards)", elem_id="picture", interactive=False, buttons=[],
        height=200, alt_text="Mel spectrogram of the track",
    )  # fmt: skip
    tags = gr.Label(label="Likeliest tags, by the audio encoder", num_top_classes=8, show_heading=False)
    facts = gr.Dataframe(
        headers=["fact", "measured", "confidence"], label="Measured", interactive=False, elem_id="facts"
    )
    return [tags, picture, facts]


def _forget(session: DemoSession) -> list[Message]:
    session.clear_turns()
    return []


def _wire_tracks(
    page: Callbacks, session: gr.State, inputs: list[Any], shown: list[Any], chat: gr.Chatbot, asking: list[Any]
) -> None:
    """Wire what a new track or window starts: the old track is removed, then the new one is encoded and measured."""
    audio, window = inputs
    summary, tags, picture, facts = shown
    everything = [summary, tags, picture, chat, facts]
    for trigger in (audio.change, window.change):
        cleared = trigger(
            page.clear_track, [audio, session], everything, cancels=asking, queue=False, show_progress="hidden"
        )
        loaded = cleared.then(
            _load_or_remove(page), [audio, session, window], [*everything, audio, session], show_progress_on=summary,
            concurrency_id="hear", trigger_mode="multiple",
        )  # fmt: skip
        loaded.then(
            page.guard(page.measure), [session], [facts], show_progress_on=facts, concurrency_id="facts",
            trigger_mode="multiple",
        )  # fmt: skip


def _load_or_remove(page: Callbacks) -> Callable[[str | None, DemoSession, Any], Any]:
    """Load a file, and remove one that can't be used, so that another can be dropped in its place."""

    def run(path: str | None, session: DemoSession, window: Any) -> Any:
        shown = page.load_track(path, session, window)
        if shown is None:
            return gr.skip()
        # The same session is returned: gradio deletes, and so drops, only values that were returned to it.
        return (*shown, None if path and session.handle is None else gr.skip(), session)

    return run


def _wire_questions(page: Callbacks, session: gr.State, talk: _Talk, sliders: list[gr.Slider]) -> list[Any]:
    """Wire everything that asks a question; returns the events, so that they can be cancelled."""
    given, chat = [session, *sliders], [talk.chat]
    ask = page.guard_stream(page.ask)
    # A question that is asked during an answer is queued.
    waits: dict[str, Any] = {"concurrency_id": "ask", "trigger_mode": "multiple"}
    boxed = [talk.question, *given]
    asking: list[Any] = [
        talk.question.submit(_ask_from_box(page), boxed, [talk.question, *chat], js=EMPTY_THE_BOX, **waits)
    ]
    for button, text in talk.ready:
        asking.append(button.click(ask, [gr.State(text), *given], chat, **waits))
    asking.append(talk.chat.retry(_regenerate(page), given, chat, concurrency_id="ask"))
    asking.append(talk.chat.edit(_edit(page), given, chat, concurrency_id="ask"))
    if page.service.stores_likes:
        talk.chat.like(_judge(page), [session], None)
    return asking


def _ask_from_box(page: Callbacks) -> Callable[..., Iterator[Any]]:
    """Ask the question in the box; one that can't be asked is put back into it."""

    def run(question: str, *given: Any) -> Iterator[Any]:
        succeeded = False
        with page.errors_as_toasts():
            for messages in page.ask(question, *given):
                yield gr.skip(), messages
            succeeded = True
        if not succeeded:
            yield without_surrogates(question), gr.skip()

    return run


def _regenerate(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.RetryData, *values: Any) -> Iterator[Any]:
        yield from page.guard_stream(page.regenerate)(_message_index(event), *values)

    return _annotated(run, gr.RetryData)


def _edit(page: Callbacks) -> Callable[..., Iterator[Any]]:
    def run(event: gr.EditData, *values: Any) -> Iterator[Any]:
        yield from page.guard_stream(page.edit)(_message_index(event), str(event.value), *values)

    return _annotated(run, gr.EditData)


def _judge(page: Callbacks) -> Callable[..., None]:
    def run(event: gr.LikeData, session: DemoSession) -> None:
        page.guard(page.judge)(_message_index(event), event.liked if isinstance(event.liked, bool) else None, session)

    return _annotated(run, gr.LikeData)


def _annotated(run: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """Annotate the first parameter for gradio, which doesn't read annotations that are strings."""
    run.__annotations__ = {"event": kind}
    return run


def _many_files(page: Callbacks, window: gr.Radio, sliders: list[gr.Slider]) -> None:
    session, rows, run = gr.State(DemoSession()), gr.State([]), gr.State(0)
    files = gr.File(file_count="multiple", label="Files", elem_id="files")
    questions = gr.Textbox(
        CAPTION_QUESTIONS["short"], lines=3, label="Questions, one a line", max_length=4000, elem_id="questions"
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
    given, filled = [run, files, questions, session, window, *sliders], [table, rows, progress]
    started = start.click(
        lambda session: [session.begin_run(), *[gr.DownloadButton(interactive=False)] * len(FORMATS)], [session],
        [run, *downloads], queue=False,
    )  # fmt: skip
    running = started.then(page.guard_stream(page.batch), given, filled, concurrency_id="batch")
    running.then(_downloads, [rows], downloads)
    stop.click(lambda session: session.stop(), [session], None, queue=False)


def _downloads(rows: list[TableRow]) -> list[Any]:
    """The three files to download, where there are answers."""
    if not rows:
        return [gr.DownloadButton(interactive=False)] * len(FORMATS)
    return [gr.DownloadButton(value=path, interactive=True) for path in save_all(rows)]


def serve(blocks: gr.Blocks, serving: Serving, *, max_mb: int, examples: Sequence[Path] = ()) -> None:
    """Serve a page until it is interrupted or terminated; then uploads are deleted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reach_past_proxies(serving.host)
    # A file up to twice too large is refused by the service, which says what to do; gradio refuses the rest.
    blocks.launch(
        server_name=serving.host, server_port=serving.port, share=serving.share, auth=serving.auth,
        max_file_size=f"{2 * max_mb}mb", allowed_paths=[str(path.parent) for path in examples], show_error=True,
        run_history=False, footer_links=[], quiet=False, theme=gr.themes.Soft(),
        css=CSS, js=plain_toasts(max_mb),
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
    """Name and password that users must give."""


def reach_past_proxies(host: str) -> None:
    """Keep this process from requesting its own page through a proxy, as gradio does to see whether it is served.

    Only the hosts of this machine are added to `no_proxy`; all others go through the proxy as before.

    Args:
        host: the address that is listened at.
    """
    # Where both are set, the lower-case one has precedence in clients, so both get the same list.
    value = next((os.environ[name] for name in _NO_PROXY if os.environ.get(name)), "")
    hosts = [entry.strip() for entry in value.split(",") if entry.strip()]
    if "*" in hosts:
        return
    hosts += [name for name in (*_LOOPBACK, host) if name not in hosts]
    os.environ.update(dict.fromkeys(_NO_PROXY, ",".join(hosts)))
