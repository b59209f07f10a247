"""The scores as a table for a model card.

Run: python -m benchmarks.mini.card benchmarks/results/mini.json [--into docs/models/mini.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu_llama.files import write_whole

BEGIN, END = "<!-- scores: benchmarks.mini.card -->", "<!-- end of scores -->"
"""What a card holds around its table."""
WANTED: Mapping[str, tuple[str, int | None, int | None]] = {
    "solo instrument": ("solo instrument named, and no other", 85, 60),
    "drums": ("drums, yes or no", 95, 40),
    "bands": ("instruments of a band, yes or no, mean of the families below", 75, 20),
    "band: guitar": ("guitar", None, None),
    "band: bass": ("bass", None, None),
    "band: brass": ("brass", None, None),
    "band: organ": ("organ", None, None),
    "band: strings": ("strings", None, None),
    "band: synthesizer": ("synthesizer", None, None),
    "band: piano": ("piano", None, None),
    "vocal or instrumental": ("sung mixes and their voice-free twins", 90, 35),
    "vocal or instrumental, over recordings": ("a voice over recordings, or none", None, None),
    "choir, orchestra or solo": ("choir, orchestra or solo", 85, 45),
    "genre, rendered": ("style, rendered, named by the tagger too", 70, 40),
    "genre, rendered, unheard by the tagger": ("style, rendered, not named by the tagger", None, None),
    "genre, real": ("style, recordings", 70, 40),
    "tagger's genres": ("the tagger's confident genres (pseudo-labels)", 85, 30),
    "energy": ("energy, three levels (pseudo-labels)", 60, 20),
    "valence": ("dark, neutral, bright (pseudo-labels)", 60, 20),
    "four choices": ("four choices", 75, 40),
    "can't tell": ("questions that sound can't answer, refused", 90, None),
    "no music": ("speech, noise, music", None, None),
}
"""Task to what the table calls it, the balanced accuracy wanted in percent, and how far above other audio."""


def table(result: Mapping[str, Any]) -> str:
    """Write a result of `benchmarks.mini` as Markdown."""
    headings = ("question", "asked (classes)", "own audio", "shuffled", "blind", "one answer always", "tagger alone",
                "unseen wording", "wanted")  # fmt: skip
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for name, (label, min_accuracy, above) in WANTED.items():
        score = result["bands"] if name == "bands" else result["tasks"].get(name)
        if score is not None:
            lines.append(_row(label, score, min_accuracy, above))
    return "\n".join((*lines, "", _rest(result)))


def with_table(card: str, result: Mapping[str, Any]) -> str:
    """Replace the table between a card's marks.

    Raises:
        ValueError: if the card doesn't have each mark once, in order.
    """
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the card holds no place for scores: put the lines {BEGIN!r} and {END!r} where they belong")
    return f"{before}{BEGIN}\n\n{table(result)}\n\n{END}{after}"


def _row(label: str, score: Mapping[str, Any], min_accuracy: int | None, above: int | None) -> str:
    def percent(kind: str) -> str:
        return "-" if score.get(kind) is None else f"{score[kind]}%"

    asked = f"{score['questions']} ({score['classes']})" if "questions" in score else ""
    wanted = "-" if min_accuracy is None else f"{min_accuracy}%" + ("" if above is None else f", +{above}")
    kinds = ("shuffled", "blind", "most_frequent", "tagger", "unseen_wording")
    cells = [label, asked, f"**{percent('own_audio')}**", *map(percent, kinds), wanted]
    return "| " + " | ".join(cells) + " |"


def _rest(result: Mapping[str, Any]) -> str:
    facts, texts = result["facts"], result["descriptions"]
    return (
        f"Of {facts['questions']} questions about tempo and key {facts['equal']}% say what was measured (98% wanted), "
        f"{facts['hedged_as_measured']}% hedge exactly where the measurement is unsure, and "
        f"{facts['refused_unmeasured']}% refuse where nothing was measured. Answerable questions refused: "
        f"{result['wrongly_refused']}% (at most 5%). Of {texts['descriptions']} full descriptions the most frequent is "
        f"{texts['most_frequent']}% (at most 5%); {texts['contradicted']}% contradict a label (at most 10%)."
    )


def main() -> None:
    """Print the table, or write it into a card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--into", type=Path, help="card whose table is replaced, instead of printing it")
    chosen = parser.parse_args()
    result = json.loads(chosen.result.read_text(encoding="utf-8"))
    if chosen.into is None:
        print(table(result))
    else:
        card = with_table(chosen.into.read_text(encoding="utf-8"), result)
        write_whole(chosen.into, [card])


if __name__ == "__main__":
    main()
