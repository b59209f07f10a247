"""Clips, the tagger's probabilities and guessed energy and valence become tracks that `mu_llama.musicqa` asks about.

What scores and makers say is a label; what a tagger says with confidence is a guess, and worded as one. Run in the
project's environment: python -m recipes.mini.tracks --work DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mu_llama.files import read_lines, to_line, write_whole
from mu_llama.labels.track import Track
from recipes.mini.extract_features import changed_path
from recipes.mini.tag_words import BROADER, ERAS, FEELINGS, GENRES, INSTRUMENTS, MOODS, NAMED_BY, USES, VOICE_TAGS

YES, NO = 0.35, 0.05
"""The tagger's probability from which a tag counts as present, and up to which as absent; between, nothing is asked."""
_AGREES = 3
# About the terciles of the training clips; fixed, so that a change of the mix doesn't change what a word means.
ENERGY_CUTS, VALENCE_CUTS = (0.20, 0.42), (0.25, 0.50)
_NO_MARGIN = 0.04


def _level(value: float | None, cuts: tuple[float, float], names: Sequence[str]) -> tuple[str, ...]:
    """The tercile, unless the value lies at a border."""
    if value is None or min(abs(value - cut) for cut in cuts) < _NO_MARGIN:
        return ()
    return (names[sum(value > cut for cut in cuts)],)


def _words(table: Mapping[str, str], tags: Mapping[str, float]) -> tuple[str, ...]:
    """Words whose tags are confident, surest first, each once."""
    sure = sorted((tag for tag in table if tags.get(tag, 0.0) >= YES), key=lambda tag: -tags[tag])
    return tuple(dict.fromkeys(table[tag] for tag in sure))


def _unlikely(table: Mapping[str, str], tags: Mapping[str, float]) -> tuple[str, ...]:
    """Words none of whose tags is likely."""
    likely = {word for tag, word in table.items() if tags.get(tag, 0.0) > NO}
    return tuple(dict.fromkeys(word for word in table.values() if word not in likely))


def tagger_agrees(style: str, tags: Mapping[str, float]) -> bool:
    """Whether one of the tagger's three likeliest genres names the style of a rendered groove."""
    likeliest = sorted((tag for tag in GENRES if tag in tags), key=lambda tag: -tags[tag])[:_AGREES]
    return any(GENRES[tag] in NAMED_BY.get(style, ()) for tag in likeliest)


def style_of(clip: Mapping[str, Any], tags: Mapping[str, float]) -> str | None:
    """The genre that may be stated: of grooves only where the tagger gives a similar one."""
    style = clip["labels"].get("style")
    if style in (None, "game music"):
        return None
    style = str(style).replace(" game music", " music")
    if clip["group"] == "C":  # which island a tune comes from, and its dance, isn't audible from one player
        return None
    return None if clip["group"] == "A" and not tagger_agrees(style, tags) else style


def track_of(
    work: Path, clip: Mapping[str, Any], tags: Mapping[str, float], energy_valence: Mapping[str, float]
) -> Track:
    """Sort what is known of a clip into labels, absences, guesses and doubts."""
    labels = clip["labels"]
    instruments = tuple(labels.get("instruments") or ())
    style = style_of(clip, tags)
    sure: dict[str, Iterable[str | None]] = {
        "instrument": instruments,
        "faint": labels.get("faint") or (),
        "lead": (labels.get("lead"),),
        "ensemble": (_ensemble(labels),),
        "genre": (style,),
        "broader genre": ("folk",) if clip["group"] == "C" else BROADER.get(style or "", ()),
        "voice": (_voice(labels),),
        "sound": (labels.get("sound"),),
        "rendered style": (labels.get("style"),) if clip["group"] == "A" else (),
        "production": (
            None
            if labels.get("acoustic") is None or (labels["acoustic"] and not instruments)
            else "acoustic"
            if labels["acoustic"]
            else "electric",
        ),
        "era": (next((era for word, era in ERAS.items() if word in (style or "")), None),),
    }
    complete = bool(labels.get("instruments_complete")) and labels.get("instruments") is not None
    absent = {
        "instrument": (["others"] if complete else []) + (["drums"] if labels.get("drums") is False else []),
        "voice": ["voice"] if labels.get("vocals") is False else [],
    }
    guesses = {
        "genre": _words(GENRES, tags) or (("folk",) if clip["group"] == "C" else ()),
        "instrument": _words(INSTRUMENTS, tags),
        "energy": _level(energy_valence.get("energy"), ENERGY_CUTS, ("low", "medium", "high")),
        "valence": _level(energy_valence.get("valence"), VALENCE_CUTS, ("dark", "neutral", "bright")),
    }
    voices = max(tags.get(tag, 0.0) for tag in VOICE_TAGS)
    guesses["voice"] = ("voice",) if voices >= YES and labels.get("vocals") is None else ()
    feelings = FEELINGS.get(("".join(guesses["energy"]), "".join(guesses["valence"])), ())
    guesses["mood"] = tuple(dict.fromkeys((*_words(MOODS, tags), *feelings)))
    guesses["use"] = _uses(style, guesses)
    doubts = {
        "genre": tuple(name for name in _unlikely(GENRES, tags) if name not in guesses["genre"]),
        "instrument": _unlikely(INSTRUMENTS, tags),
        "voice": ("voice",) if voices <= NO and labels.get("vocals") is None and "choir" not in instruments else (),
    }
    tempo = labels.get("tempo_bpm")
    return Track(
        clip["id"],
        audio=(work / clip["path"]).resolve(),
        tags={name: tuple(value for value in values if value) for name, values in sure.items()},
        absent={name: tuple(values) for name, values in absent.items()},
        guesses=guesses,
        doubts=doubts,
        facts={} if tempo is None else {"tempo_bpm": float(tempo)},
        artist=clip["work"],
        licence=clip["licence"],
        source="mini F" if "-over-" in clip["id"] else f"mini {clip['group']}",
    )


_SECTIONS = frozenset({"strings", "choir", "brass section"})


def _ensemble(labels: Mapping[str, Any]) -> str | None:
    """Who plays; one section of many players is no soloist."""
    name = labels.get("ensemble")
    section = name == "solo" and _SECTIONS & set(labels.get("instruments") or ())
    return None if section else name


def _voice(labels: Mapping[str, Any]) -> str | None:
    if labels.get("vocals") is not True:
        return None
    return labels.get("voice") or ("choir" if labels.get("ensemble") == "choir" else "unknown")


def _uses(style: str | None, guesses: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    words = [
        *([style] if style else []),
        *guesses["genre"],
        *guesses["mood"],
        *(f"{e} energy" for e in guesses["energy"]),
    ]
    return tuple(
        dict.fromkeys(use for word in words for key, fitting in USES.items() if key in word for use in fitting)
    )


def read_tracks(work: Path) -> dict[str, list[Track]]:
    """All tracks by split."""
    tags = {row["id"]: row["tags"] for path in sorted(work.glob("tags.*.jsonl")) for row in read_lines(path)}
    energy_valence = {row["id"]: row for row in read_lines(work / "feel.jsonl")}
    splits: dict[str, list[Track]] = {"train": [], "val": [], "test": []}
    for path in sorted((work / "clips").glob("?.jsonl")):
        for clip in read_lines(path):
            if clip["id"] in tags:
                known = track_of(work, clip, tags[clip["id"]], energy_valence.get(clip["id"], {}))
                splits[clip["split"]].append(known)
    return splits


def changed_track(work: Path, track: Track) -> Track | None:
    """The changed version of a training clip; None if it has none."""
    path = changed_path(work, {"group": track.id[0], "id": track.id}).resolve()
    return replace(track, audio=path) if path.exists() else None


def write_tracks(work: Path) -> None:
    """Write what is known of every clip: `tracks.<split>.jsonl`."""
    splits = read_tracks(work)
    for split, tracks in splits.items():
        write_whole(work / f"tracks.{split}.jsonl", (to_line(track.to_dict()) for track in tracks))
    print(", ".join(f"{name} {len(tracks)}" for name, tracks in splits.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mini"))
    write_tracks(parser.parse_args().work)
