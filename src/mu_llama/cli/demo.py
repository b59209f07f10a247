"""`mu-llama demo`: talk about a track in the browser."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mu_llama.cli import options as opt
from mu_llama.errors import ConfigError, MuLlamaError


@dataclass(frozen=True)
class ServeOptions:
    """Where the page is served, and its limits."""

    host: Annotated[
        str,
        typer.Option(help="Address to listen at; 0.0.0.0 lets others on the network connect."),
    ] = "127.0.0.1"
    port: Annotated[int | None, typer.Option(help="Port.", show_default="a free one from 7860 on")] = None
    share: Annotated[bool, typer.Option(help="Make a public address through gradio's servers.")] = False
    auth: Annotated[
        str | None,
        typer.Option(help="NAME:PASSWORD that users must give.", show_default=False, envvar="MU_LLAMA_DEMO_AUTH"),
    ] = None
    likes: Annotated[
        Path | None, typer.Option(help="Save likes and dislikes of answers to this JSONL file.", show_default=False)
    ] = None
    max_mb: Annotated[int, typer.Option("--most-mb", min=1, help="Largest file, in megabytes.")] = 200
    max_minutes: Annotated[float, typer.Option("--most-minutes", min=0.1, help="Longest track, in minutes.")] = 60.0
    max_tracks: Annotated[
        int,
        typer.Option("--most-tracks", min=1, help="Tracks kept at once; the least recently used are dropped first."),
    ] = 64


@opt.records_expanded
def demo(model: opt.ModelOptions = opt.ModelOptions(), serving: ServeOptions = ServeOptions()) -> None:
    """Talk about a track in the browser; needs pip install 'mu-llama[demo]'.

    Only this machine can open the page, unless --host or --share says otherwise.
    """
    from mu_llama.cache_folder import temporary_home

    try:
        pair = _name_and_password(serving.auth)
        # Gradio's own folder belongs to whoever ran a demo here first; uploads are this user's alone.
        os.environ.setdefault("GRADIO_TEMP_DIR", str(temporary_home() / "gradio"))
        try:
            from httpx import HTTPError

            from mu_llama.app.page import Serving, build_page, serve
        except ModuleNotFoundError as error:
            raise ConfigError("the demo needs gradio; run: pip install 'mu-llama[demo]'") from error
        except ImportError as error:  # of a dependency of gradio, such as a proxy's protocol
            raise ConfigError(f"the demo's gradio can't be loaded ({error})") from error
        from mu_llama.app.service import DemoService, Limits

        _check_likes(serving.likes)
        limits = Limits(serving.max_mb, serving.max_minutes, serving.max_tracks)
        service = DemoService(opt.load_listener(model), limits=limits, likes=serving.likes)
        examples = _examples()
        blocks = build_page(service, examples=examples)
    except MuLlamaError as error:
        raise opt.fail(error) from None
    if pair is None and (serving.share or serving.host not in ("127.0.0.1", "localhost", "::1")):
        print(
            "warning: everybody who reaches this address can use the demo; --auth asks for a password", file=sys.stderr
        )
    where = Serving(serving.host, serving.port, serving.share, pair)
    try:
        serve(blocks, where, max_mb=limits.max_mb, examples=examples)
    except (OSError, ValueError, HTTPError) as error:
        raise opt.fail(f"the page can't be served: {error}; choose another --port or --host") from None


def _check_likes(path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"--likes {path}: can't be written ({error.strerror}); make its folder first") from error


def _name_and_password(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise ConfigError("--auth has no name, colon and password; expected NAME:PASSWORD")
    return name, password


def _examples() -> list[Path]:
    """The clips of a checkout; an installed package has none."""
    folder = Path(__file__).parents[3] / "examples" / "audio"
    return sorted(folder.glob("*.ogg"))
