"""Key, tempo, licence, voice and labels read from text that people and programs wrote; pure functions."""

from __future__ import annotations

import re
from typing import Final

MIN_BPM, MAX_BPM = 20.0, 300.0
"""Tempi outside are mistakes: beats that are counted in a record's index, hundredths, placeholders such as 999."""
MAX_LABEL_WORDS, MAX_LABEL_CHARACTERS = 8, 80
"""A longer label is a sentence."""

# Spelled as measured keys are, see audio/facts/key.py.
_TONICS: Final = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_SEMITONES: Final = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_SHIFTS: Final = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1, "sharp": 1, "flat": -1, "natural": 0, "is": 1, "es": -1}
# Camelot (A minor, B major) counts fifths from A flat minor at 1A, Open Key (m minor, d major) from A minor at 1m.
_WHEEL = re.compile(r"0?([1-9]|1[0-2])([ABMD])", re.IGNORECASE)
_NOTE_AND_MODE = re.compile(
    r"([a-g])\s*(?:[-\s]?(sharp|flat|natural)|([#♯b♭]))?[-\s]*(major|minor|maj|min|m)?\.?", re.IGNORECASE
)
_GERMAN = re.compile(r"(as|es|[a-h](?:is|es|[#♯b♭])?)[-\s]*(dur|moll)", re.IGNORECASE)
_BETWEEN_NOTATIONS = re.compile(r"\s*[/|,;()\[\]=]\s*|\s+[-–—]\s+")
_TEMPO = re.compile(
    r"(?:(?:bpm|tempo|♩)\s*[:=]?\s*)?(?:~|≈|ca\.?|c\.|about|around|approx\.?|approximately)?\s*"
    r"(\d+(?:[.,]\d+)?)\s*(?:b\.?p\.?m\.?|beats per minute|beats/min(?:ute)?)?",
    re.IGNORECASE,
)
# Words that make any text a licence, and names that are one alone, with a version or a remark behind them at most.
_SAYS_LICENCE = re.compile(
    r"\bcc[\s-]*(?:0(?!\d)|zero|by|sa|nc|nd|pdm?|mark)(?![a-z])|\bby(?:-(?:nc|nd|sa))+\b|creative\s?commons|"
    r"\bpublic[\s-]?domain\b(?! \w)|(?<!exclusive )\blicen[cs](?:ed?|es|ing)\b(?! to\b)|\brights? reserved\b|"
    r"\bno (?:known |rights|copyright)|\broyalty[\s-]free\b|\bproprietary\b|\bnon-?commercial\b|\bfree (?:to|for)\b|"
    r"\b(?:use|purposes|distribution|permission) (?:only|required|granted|prohibited|forbidden)\b|\bpersonal use\b",
    re.IGNORECASE,
)
_IS_LICENCE = re.compile(
    r"(?:cc|pd|publicdomain|copyleft|sampling\+?|mit|bsd|isc|apache|a?gpl|lgpl|mpl|gfdl|wtfpl|unlicense|odbl|odc-by|"
    r"eff oal|oal|lal|fal|attribution(?:[\s-]*(?:non-?commercial|share-?alike|no-?derivs?|no-?derivatives))*)"
    r"(?:[\s-]*(?:v|version\s)?\d[\w.+-]*)?(?:-(?:only|or-later|clause))*(?: (?:international|unported|generic))?"
    r"(?: \(.*\))?",
    re.IGNORECASE,
)
_NOTHING = frozenset(
    ("unknown", "none", "null", "nil", "nan", "n/a", "na", "other", "misc", "miscellaneous", "undefined", "unspecified",
     "not set", "no genre", "genre", "default", "tbd", "todo", "<unknown>", "(unknown)", "unclassifiable", "unlabeled",
     "unlabelled", "no data")
)  # fmt: skip
_YES, _NO = frozenset(("yes", "true", "y", "1")), frozenset(("no", "none", "false", "n", "0", "nobody"))


def parse_key(text: object) -> str | None:
    """Read a musical key in Camelot, Open Key or ID3 notation, or in English or German words.

    A `Dur` or `Moll` behind it marks a German B. Several notations of one key may stand together
    (`8A / Am`). ID3's `o` (off key), two different keys, small letters without a mode and bare numbers are no key.

    Returns:
        Tonic and mode as measured keys are spelled, or None.

    Example:
        >>> parse_key("8A"), parse_key("F#m"), parse_key("Gbmin"), parse_key("B-Dur"), parse_key("o")
        ('A minor', 'F sharp minor', 'F sharp minor', 'B flat major', None)
    """
    if not isinstance(text, str):
        return None
    plain = " ".join(text.replace("_", " ").split())
    key = _one_key(plain)
    if key is not None:
        return key
    parts = [part for part in _BETWEEN_NOTATIONS.split(plain) if part]
    keys = {_one_key(part) for part in parts}
    return keys.pop() if len(parts) > 1 and len(keys) == 1 else None


def _one_key(text: str) -> str | None:
    if match := _WHEEL.fullmatch(text):
        return _on_the_wheel(int(match[1]), match[2].upper())
    if match := _GERMAN.fullmatch(text):
        return _in_german(match[1].lower(), match[2].lower())
    if match := _NOTE_AND_MODE.fullmatch(text):
        note, shift, mode = match[1], (match[2] or match[3] or "").lower(), match[4] or ""
        if not mode and note.islower():  # German for minor, else a slip
            return None
        is_minor = mode.lower() in ("minor", "min") or mode == "m"
        return _spelled(_SEMITONES[note.lower()] + _SHIFTS[shift], is_minor=is_minor)
    return None


def _on_the_wheel(number: int, letter: str) -> str:
    is_minor = letter in "AM"
    first = 8 if letter in "AB" else 1  # the hour of A minor and C major
    return _spelled(7 * (number - first) + (9 if is_minor else 0), is_minor=is_minor)


def _in_german(note: str, mode: str) -> str:
    """Read a German note: H is the English B, and B its B flat."""
    if note in ("as", "es"):
        semitone = _SEMITONES[note[0]] - 1
    else:
        semitone = 10 if note == "b" else _SEMITONES[note[0]]
        semitone += _SHIFTS[note[1:]]
    return _spelled(semitone, is_minor=mode == "moll")


def _spelled(semitone: int, *, is_minor: bool) -> str:
    return f"{_TONICS[semitone % 12]} {'minor' if is_minor else 'major'}"


def parse_tempo(value: object) -> float | None:
    """Read beats per minute, with a decimal point or comma and with or without the unit; a range is none.

    Returns:
        From `MIN_BPM` to `MAX_BPM`; None for anything else.

    Example:
        >>> parse_tempo("127,99"), parse_tempo("128 BPM"), parse_tempo(0), parse_tempo("120-125")
        (127.99, 128.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _TEMPO.fullmatch(" ".join(str(value).split()))
    bpm = float(match[1].replace(",", ".")) if match else 0.0
    return bpm if MIN_BPM <= bpm <= MAX_BPM else None


def parse_licence(value: object) -> str | None:
    """Give a licence as it is written, where the text is one: Creative Commons in any form, the public domain,
    licences of software and art by name, and words that say what is allowed. A year, a name or a notice of who holds
    the copyright says nothing of it.

    Example:
        >>> parse_licence("CC BY 4.0"), parse_licence("2020"), parse_licence("(c) 2020 A Band")
        ('CC BY 4.0', None, None)
    """
    text = " ".join(value.split()) if isinstance(value, str) else ""
    plain = text.replace("_", " ")
    return text if _SAYS_LICENCE.search(plain) or _IS_LICENCE.fullmatch(plain) else None


def parse_label(value: str) -> str | None:
    """Give a label in one line; None for a number, a placeholder, an address or a sentence.

    Example:
        >>> parse_label(" Deep  House "), parse_label("Unknown"), parse_label("17")
        ('Deep House', None, None)
    """
    label = " ".join(value.split())
    is_short = len(label) <= MAX_LABEL_CHARACTERS and len(label.split()) <= MAX_LABEL_WORDS
    says_something = any(letter.isalpha() for letter in label) and label.casefold() not in _NOTHING
    return label if is_short and says_something and "://" not in label else None


def parse_voice(value: str) -> str | bool | None:
    """Read a label of the voice: a kind of voice, whether there is one, or None where it says neither.

    Example:
        >>> parse_voice("female"), parse_voice("yes"), parse_voice("none"), parse_voice("?")
        ('female', True, False, None)
    """
    plain = " ".join(value.split()).casefold()
    if plain in _YES or plain in _NO:
        return plain in _YES
    return parse_label(value)
