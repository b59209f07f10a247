"""Read tune books in ABC notation (music21's corpus) and play a tune into notes with Debian's abc2midi."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from recipes.mini.notes import Note, read_midi
from recipes.mini.plans import music21_corpus

ABC2MIDI = Path("packages/abcmidi/usr/bin/abc2midi")
# 0626-0700.abc carries a copyright notice, so it is left out.
_LEFT_OUT = frozenset({"0626-0700.abc"})
_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_KEY_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_MODES = {
    "": "major", "maj": "major", "m": "minor", "min": "minor", "dor": "dorian", "mix": "mixolydian",
    "lyd": "lydian", "phr": "phrygian", "aeo": "minor", "ion": "major",
}  # fmt: skip
_DANCES = {
    "reel": "reel", "hornpipe": "hornpipe", "jig": "jig", "double jig": "jig", "slipjig": "slip jig",
    "slip jig": "slip jig", "slide": "slide", "air": "air", "waltz": "waltz", "march": "march",
}  # fmt: skip


@dataclass(frozen=True)
class Tune:
    """One tune of a book: its header in plain values, its body as written."""

    book: str
    number: str
    title: str
    meter: str
    unit: str
    key_field: str
    tonic: int
    mode: str
    dance: str | None
    body: str

    @property
    def work(self) -> str:
        """The name that decides the split: the title, so that a tune in both books is in one split."""
        return "tune:" + re.sub(r"[^a-z]", "", re.sub(r"^the |, the$", "", self.title.lower()))

    @property
    def style(self) -> str:
        """Plain English style."""
        if self.book == "oneills1850":
            return f"Irish {self.dance}" if self.dance else "Irish traditional"
        return "British traditional"


def key_name(pitch_class: int) -> str:
    """Name a tonic, with sharps or flats as commonly written."""
    return _KEY_NAMES[pitch_class % 12]


def _parse(book: str, block: str) -> Tune | None:
    """Read one `X:` block; None where meter or key can't be understood or there is more than one."""
    head: dict[str, list[str]] = {}
    body: list[str] = []
    for line in block.splitlines():
        if match := re.match(r"([A-Za-z]):(.*)", line):
            head.setdefault(match[1], []).append(match[2].split("%")[0].strip())
        elif line.strip() and not line.startswith("%"):
            body.append(line)
    if any(len(head.get(field, [])) != 1 for field in "MK") or not body or "X" not in head or "V" in head:
        return None
    key = re.match(r"([A-G])([#b]?)\s*([a-zA-Z]*)$", head["K"][0])
    if key is None or (mode := _MODES.get(key[3].lower()[:3])) is None:
        return None
    tonic = (_PITCHES[key[1]] + {"#": 1, "b": -1, "": 0}[key[2]]) % 12
    title = head.get("T", ["untitled"])[0].strip(" .")
    dance = _DANCES.get(head.get("R", [""])[0].lower())
    unit = head.get("L", ["1/8"])[0]
    meter = {"C": "4/4", "C|": "2/2"}.get(head["M"][0], head["M"][0])
    number = head["X"][0].lstrip("0")
    return Tune(book, number, title, meter, unit, head["K"][0], tonic, mode, dance, "\n".join(body))


def read_books() -> list[Tune]:
    """Read O'Neill's and Aird's books; of a title met twice only the first is kept."""
    corpus = music21_corpus()
    tunes: dict[str, Tune] = {}
    for book in ("oneills1850", "airdsAirs"):
        for path in sorted((corpus / book).glob("*.abc")):
            if path.name in _LEFT_OUT:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for block in re.split(r"(?m)^(?=X:)", text)[1:]:
                tune = _parse(book, block)
                if tune is not None:
                    tunes.setdefault(tune.work, tune)
    return list(tunes.values())


def play(tune: Tune, work_dir: Path) -> list[Note]:
    """Play a tune once with its repeats; `start_s` and `end_s` of the notes are in QUARTERS, not seconds."""
    body = re.sub(r'"[^"]*"', "", tune.body)
    text = f"X:1\nT:x\nM:{tune.meter}\nL:{tune.unit}\nQ:1/4=60\nK:{tune.key_field}\n{body}\n"
    with tempfile.TemporaryDirectory() as folder:
        abc, midi = Path(folder, "tune.abc"), Path(folder, "tune.mid")
        abc.write_text(text, encoding="utf-8")
        command = [str(work_dir / ABC2MIDI), str(abc), "-o", str(midi), "-quiet"]
        subprocess.run(command, check=False, capture_output=True, timeout=20)
        if not midi.exists():
            return []
        notes = read_midi(midi)
    first = notes[0].start_s if notes else 0.0
    return [replace(n, start_s=n.start_s - first, end_s=n.end_s - first) for n in notes]
