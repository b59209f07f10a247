"""The demo's page: what stands where, and which of `chat`'s functions a control calls. The only door to gradio."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mu_llama.app.batch import FORMATS, HEADINGS, Row, answer_files, write_rows
from mu_llama.app.chat import CAPTION_QUESTION, Desk, Stopped, message_text, turns_of
from mu_llama.app.pictures import mel_picture
from mu_llama.errors import MuLlamaError
from mu_llama.generation import GenerationOptions
from mu_llama.musicqa.reply import FIXED_QUESTIONS
from mu_llama.prompts import Turn

Message = dict[str, Any]
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
            raise gr.Error(_sentence(error), duration=8, print_exception=False) from error

    return run


def _told_on_the_way(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for functions that yield."""

    def run(*values: Any) -> Iterator[Any]:
        try:
            yield from function(*values)
        except MuLlamaError as error:
            raise gr.Error(_sentence(error), duration=8, print_exception=False) from error

    return run


def _sentence(error: MuLlamaError) -> str:
    text = " ".join(str(error).split())
    first = text.split(" ", 1)[0]
    if "." in first.rstrip("."):  # a file's name
        return text + ("" if text.endswith(".") else ".")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


class Page:
    """The callbacks of one page, between gradio's values and a `Desk`.

    Args:
        desk: answers.
        examples: audio files to pick from.
    """

    def __init__(self, desk: Desk, examples: Sequence[Path]) -> None:
        self.desk = desk
        self.examples = examples

    def hear(self, path: str | None, token: str) -> tuple[Any, ...]:
        """Take a new track in; gives token, line of what was heard, tags, picture, facts, empty chat."""
        if token:
            self.desk.drop(token)
        if not path:
            return "", "", None, None, [], []
        held = self.desk.take(path)
        tags = self.desk.top_tags(held)
        return held.token, self.desk.heard_in_words(held), tags or None, mel_picture(held.path), [], []

    def measure(self, token: str) -> list[list[str]]:
        """Measured facts, after the rest is there: name, value, how sure."""
        if not token:
            return []
        measured = self.desk.held(token).track.measure()
        return [[name, fact.text, f"{fact.confidence:.2f}"] for name, fact in measured.items()]

    def ask(
        self, question: str, messages: list[Message], token: str, stopped: Stopped, *settings: Any
    ) -> Iterator[tuple[str, list[Message]]]:
        """Put a question and stream its answer; the question stays in its box when it can't be asked."""
        stopped.clear()
        turns = [turn for turn in turns_of(messages) if turn.answer is not None]
        said: list[Message] = [message for turn in turns for message in _messages(turn)]
        asked: list[Message] = [*said, {"role": "user", "content": question}]
        for text in self.desk.stream(token, [*turns, Turn(question)], options=_options(settings), stopped=stopped):
            yield "", [*asked, {"role": "assistant", "content": text}]

    def regenerate(
        self, event: gr.RetryData, messages: list[Message], token: str, stopped: Stopped, *settings: Any
    ) -> Iterator[tuple[str, list[Message]]]:
        """Answer an earlier question anew; what came after it goes."""
        question = message_text(messages[int(event.index)]["content"])  # type: ignore[arg-type]
        return self.ask(question, messages[: int(event.index)], token, stopped, *settings)  # type: ignore[arg-type]

    def edit(
        self, event: gr.EditData, messages: list[Message], token: str, stopped: Stopped, *settings: Any
    ) -> Iterator[tuple[str, list[Message]]]:
        """Ask an earlier question in other words; what came after it goes."""
        return self.ask(str(event.value), messages[: int(event.index)], token, stopped, *settings)  # type: ignore[arg-type]

    def judge(self, event: gr.LikeData, messages: list[Message], token: str) -> None:
        """Save whether an answer was liked."""
        place = int(event.index)  # type: ignore[arg-type]
        liked = event.liked if isinstance(event.liked, bool) else None
        question = message_text(messages[place - 1]["content"])
        self.desk.like(token=token, question=question, answer=message_text(messages[place]["content"]), liked=liked)

    def batch(
        self, paths: list[str] | None, questions: str, stopped: Stopped, *settings: Any
    ) -> Iterator[tuple[list[Row], str]]:
        """Fill the table file by file."""
        stopped.clear()
        files = paths or []
        found = answer_files(
            self.desk, files, questions.splitlines(), options=_options(settings), stopped=lambda: stopped.is_set
        )
        for done, rows in found:
            yield rows, f"{done} of {len(files)} files"


def _messages(turn: Turn) -> list[Message]:
    return [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]


def _options(settings: Sequence[Any]) -> GenerationOptions:
    temperature, top_p, most = settings
    return GenerationOptions(max_new_tokens=int(most), temperature=float(temperature), top_p=float(top_p))


def build_page(desk: Desk, *, examples: Sequence[Path] = ()) -> gr.Blocks:
    """Lay the page out over a desk."""
    page = Page(desk, examples)
    blocks = gr.Blocks(title=_TITLE, analytics_enabled=False)
    with blocks:
        gr.Markdown(f"# {_TITLE}\nUpload, record or pick a track, then ask. It is heard on this machine.")
        with gr.Tab("One track"):
            settings = _one_track(page)
        with gr.Tab("Many files"):
            _many_files(page, settings)
    blocks.queue(default_concurrency_limit=1, max_size=64, api_open=False)
    return blocks


def _settings() -> list[gr.Slider]:
    with gr.Accordion("Settings", open=False):
        return [
            gr.Slider(0, 1.5, value=0, step=0.05, label="Temperature", info="0 takes the likeliest word."),
            gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="Sample among the likeliest words up to this."),
            gr.Slider(16, 512, value=256, step=16, label="Longest answer, in tokens"),
        ]


def _one_track(page: Page) -> list[gr.Slider]:
    token, stopped = gr.State("", time_to_live=6 * 3600), gr.State(Stopped())
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            audio = gr.Audio(
                sources=["upload", "microphone"], type="filepath", label="Track", elem_id="track", buttons=[]
            )
            if page.examples:
                gr.Examples([[str(path)] for path in page.examples], inputs=[audio], label="Examples")
            heard = gr.Markdown("", elem_id="heard")
            picture = gr.Image(
                label="Mel spectrogram (time to the right, pitch upwards)", elem_id="picture", interactive=False,
                buttons=[], height=200,
            )  # fmt: skip
            tags = gr.Label(label="What the encoder hears (its likeliest tags)", num_top_classes=8, show_heading=False)
            facts = gr.Dataframe(
                headers=["fact", "measured", "confidence"], label="Measured", interactive=False, elem_id="facts"
            )
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
            settings = _settings()
    taken = [token, heard, tags, picture, facts, chat]
    listening = audio.change(_told(page.hear), [audio, token], taken, show_progress_on=heard, concurrency_id="hear")
    listening.success(_told(page.measure), [token], [facts], show_progress_on=facts, concurrency_id="facts")
    given, spoken = [chat, token, stopped, *settings], [question, chat]
    asking: list[Any] = [question.submit(_told_on_the_way(page.ask), [question, *given], spoken, concurrency_id="ask")]
    for button, text in buttons:
        fixed = gr.State(text)
        asking.append(button.click(_told_on_the_way(page.ask), [fixed, *given], spoken, concurrency_id="ask"))
    asking.append(chat.retry(_with_event(page.regenerate, gr.RetryData), given, spoken, concurrency_id="ask"))
    asking.append(chat.edit(_with_event(page.edit, gr.EditData), given, spoken, concurrency_id="ask"))
    stop.click(lambda s: s.stop(), [stopped], None, cancels=asking, queue=False)
    clear.click(lambda: ("", []), None, spoken, cancels=asking, queue=False)
    if page.desk.keeps_likes:
        chat.like(_with_like(page), [chat, token], None)
    return settings


def _with_event(function: Callable[..., Iterator[Any]], kind: type) -> Callable[..., Iterator[Any]]:
    """Give gradio a function whose first parameter it recognises by its annotation."""

    def run(event: Any, *values: Any) -> Iterator[Any]:
        try:
            yield from function(event, *values)
        except MuLlamaError as error:
            raise gr.Error(_sentence(error), duration=8, print_exception=False) from error

    run.__annotations__ = {"event": kind}
    return run


def _with_like(page: Page) -> Callable[..., None]:
    def run(event: gr.LikeData, messages: list[Message], token: str) -> None:
        try:
            page.judge(event, messages, token)
        except MuLlamaError as error:
            raise gr.Error(_sentence(error), duration=8, print_exception=False) from error

    run.__annotations__ = {"event": gr.LikeData}
    return run


def _many_files(page: Page, settings: list[gr.Slider]) -> None:
    stopped, folder = gr.State(Stopped()), Path(tempfile.mkdtemp(prefix="mu-llama-demo-"))
    files = gr.File(file_count="multiple", file_types=["audio", "video"], label="Files", elem_id="files")
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
    rows = gr.State([])
    given = [files, questions, stopped, *settings]
    running = start.click(_told_on_the_way(page.batch), given, [table, progress], concurrency_id="ask")
    stop.click(lambda s: s.stop(), [stopped], None, queue=False)
    table.change(lambda values: values, [table], [rows], queue=False)
    with gr.Row():
        for form in FORMATS:
            label = {"csv": "CSV", "jsonl": "JSONL", "zip": "Zip of text files"}[form]
            button = gr.DownloadButton(f"Download {label}", interactive=False, elem_id=f"download-{form}")
            running.then(_downloader(folder, form), [table], [button])


def _downloader(folder: Path, form: str) -> Callable[[list[Row]], Any]:
    def prepare(rows: list[Row]) -> Any:
        if not rows:
            return gr.DownloadButton(interactive=False)
        own = Path(tempfile.mkdtemp(dir=folder))
        return gr.DownloadButton(value=str(write_rows([tuple(row) for row in rows], own, form)), interactive=True)  # type: ignore[misc]

    return prepare


def serve(blocks: gr.Blocks, serving: Serving, *, most_mb: int, examples: Sequence[Path] = ()) -> None:
    """Serve a page until it is interrupted."""
    blocks.launch(
        server_name=serving.host, server_port=serving.port, share=serving.share, auth=serving.auth, css=_CSS,
        max_file_size=f"{most_mb}mb", allowed_paths=[str(path.parent) for path in examples], show_error=True,
        footer_links=[], quiet=False, theme=gr.themes.Soft(),
    )  # fmt: skip
