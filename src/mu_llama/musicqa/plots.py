"""Pictures of a corpus and a data set; the only door to matplotlib here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mu_llama.errors import ConfigError

_PANEL_INCHES, _NAME_INCHES, _MOST_COLUMNS = 3.6, 1.5, 3


def plot_bars(path: Path, panels: Mapping[str, Sequence[tuple[str, int]]], *, unit: str) -> None:
    """Draw horizontal bars, a panel for each title.

    Args:
        path: PNG to write, in one step.
        panels: title to names with counts, the largest first.
        unit: of the counts.

    Raises:
        ConfigError: if matplotlib isn't installed.
    """
    shown = {title: list(bars)[::-1] for title, bars in panels.items() if bars}
    num_columns = max(1, min(_MOST_COLUMNS, len(shown)))
    num_rows = max(1, -(-len(shown) // num_columns))
    panel_height = 0.9 + 0.2 * max((len(bars) for bars in shown.values()), default=1)
    width, height = _PANEL_INCHES * num_columns, panel_height * num_rows
    figure = _figure(width=width, height=height)
    for number, (title, bars) in enumerate(shown.items()):
        # Placed by hand: the library's own layout draws everything several times.
        row, column = divmod(number, num_columns)
        left, bottom = column * _PANEL_INCHES + _NAME_INCHES, height - (row + 1) * panel_height + 0.5
        size = (_PANEL_INCHES - _NAME_INCHES - 0.25) / width, (panel_height - 0.85) / height
        axes = figure.add_axes((left / width, bottom / height, *size))
        axes.barh(range(len(bars)), [count for _, count in bars], color="#3b6ea5")
        axes.set_ylim(-0.6, max(len(bars), 6) - 0.4)
        axes.set_yticks(range(len(bars)), [name[:26] for name, _ in bars])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(unit, fontsize=8)
        axes.tick_params(labelsize=7)
    _save(figure, path)


def plot_histograms(path: Path, values: Mapping[str, Sequence[int]], *, unit: str) -> None:
    """Draw distributions over one another, a line for each name.

    Raises:
        ConfigError: if matplotlib isn't installed.
    """
    figure = _figure(width=6, height=3.2)
    axes = figure.add_axes((0.12, 0.16, 0.85, 0.8))
    longest = max((max(own, default=1) for own in values.values()), default=1)
    bins = [round(longest * step / 40) for step in range(41)] if longest > 40 else list(range(longest + 2))
    for name, own in values.items():
        axes.hist(own, bins=sorted(set(bins)), histtype="step", linewidth=1.5, label=name)
    axes.set_xlabel(unit, fontsize=8)
    axes.set_ylabel("answers", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _figure(*, width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib; run: pip install 'mu-llama[musicqa]'") from error
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.png")
    try:
        figure.savefig(scratch)
        scratch.replace(path)
    finally:
        with suppress(OSError):  # gone, when all went well
            scratch.unlink()
