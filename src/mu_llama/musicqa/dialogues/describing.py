"""Descriptions: one sentence, several, and captions for text-to-music."""

from __future__ import annotations

from mu_llama.musicqa.dialogues.character import as_kind, is_piece
from mu_llama.musicqa.dialogues.knowledge import FAMILIES, TrackLabels
from mu_llama.musicqa.dialogues.wording import Phrasebook, is_plural
from mu_llama.musicqa.english import a, capital, listed
from mu_llama.text.prompts import Turn

_NAMES_MORE = 0.3
"""How often a long description goes on to instruments that are heard less."""
_DRUMS, _NO_DRUMS = ("There are drums.", "A drum kit plays."), ("There are no drums.", "No drums are heard.")
_NO_VOICE = ("It is instrumental.", "Nobody sings.", "There are no vocals.")
_MAYBE = {
    ("drums", True): ("I think there are drums.", "It sounds like there are drums."),
    ("drums", False): ("I don't think there are drums.", "I hear no drums, I think."),
    ("singing", True): ("I think somebody sings.", "It sounds like there is a voice."),
    ("singing", False): ("It sounds instrumental.", "I think it is instrumental."),
}


def short(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """One sentence."""
    text = _opening(known, say)
    return Turn(say.pick("short", "questions"), text) if text else None


def long(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """Several sentences, what is surest first."""
    sentences = [sentence for sentence in (_opening(known, say), *_details(known, say)) if sentence]
    return Turn(say.pick("long", "questions"), " ".join(sentences)) if len(sentences) >= 3 else None


def caption(known: TrackLabels, say: Phrasebook) -> Turn | None:
    """Comma-separated, as text-to-music prompts are written."""
    parts: list[str] = []
    moods, genre = known.guessed("mood")[:2], known.one("genre") or next(iter(known.guessed("genre")), None)
    if genre:
        parts.append(genre)
    names = known.clear_instruments
    parts += list(names[:4] or known.guessed("instrument")[:2])
    if known.is_solo and names and known.is_clear("solo"):
        parts[-1] = f"solo {parts[-1]}"
    if "choir" not in parts:
        sung = _surely(known, "singing")
        parts += [] if sung is None else [_sung(known) if sung else "instrumental"]
    energy = next(iter(known.guessed("energy")), None)
    parts += [*moods, *([f"{energy} energy"] if energy else [])]
    return Turn(say.pick("caption", "questions"), capital(", ".join(parts)) + ".") if len(parts) >= 3 else None


def _surely(known: TrackLabels, what: str) -> bool | None:
    """Whether drums or singing are there by label, if a description may say so; else None."""
    there = known.has_drums if what == "drums" else known.has_voice
    return there if there is not None and known.is_clear(what if there else f"no {what}") else None


def _opening(known: TrackLabels, say: Phrasebook) -> str | None:
    names, genre, rng = known.clear_instruments, known.one("genre"), say.rng
    mood = next(iter(known.guessed("mood")), None)
    feel = f"; it sounds {mood}" if mood and rng.random() < 0.5 else ""
    if known.is_solo and known.is_clear("solo"):
        if names:
            what = rng.choice(("A solo {0}", "{1} playing alone", "A piece for solo {0}"))
            tail = f", {as_kind(genre)}" if genre and rng.random() < 0.5 else feel
            return what.format(names[0], capital(a(names[0]))) + f"{tail}."
        if _surely(known, "singing"):
            return rng.choice((f"{capital(_sung(known))} singing alone.", "Somebody sings alone, without instruments."))
    heard, opening = list[str](), _subject(known, say)
    if players := [name for name in _players(known, say) if name not in opening.lower()]:
        heard.append(listed([a(name) for name in players[: rng.choice((1, 2, 2))]]))
    if _surely(known, "singing") and "choir" not in names and not opening.lower().endswith("choir"):
        heard.insert(0, _sung(known))
    if not (heard or genre or known.guessed("genre") or known.one("ensemble")):
        return None
    return f"{opening} with {' and '.join(heard)}{feel}." if heard else f"{opening}{feel}."


def _subject(known: TrackLabels, say: Phrasebook) -> str:
    """What the first sentence is about: a style, an ensemble, or a guess."""
    genre, ensemble, rng = known.one("genre"), known.one("ensemble"), say.rng
    if ensemble in _NAMED_ENSEMBLES and known.is_clear(str(ensemble)) and rng.random() < 0.5:
        return capital(a(str(ensemble)))
    if genre and is_piece(genre):
        return capital(a(genre))
    if genre:
        music = as_kind(genre)
        return f"{rng.choice(('A piece of', 'A track of', 'Some'))} {music}" if rng.random() < 0.6 else capital(music)
    guess = next(iter(known.guessed("genre")), None)
    if guess and not known.clear_instruments:
        return f"A track that sounds like {as_kind(guess)}"
    return capital(a(rng.choice(("piece", "track"))))


_NAMED_ENSEMBLES = ("choir", "orchestra", "string orchestra", "string quartet")
_LOOSE = {member: family for family in ("guitar", "bass", "brass", "organ") for member in FAMILIES[family]}


def _players(known: TrackLabels, say: Phrasebook) -> tuple[str, ...]:
    """Instruments from the most heard; those of a band are often named by family, as a listener would in a mix."""
    names = known.clear_instruments
    if known.one("ensemble") != "band" or say.rng.random() < 0.4:
        return names
    return tuple(dict.fromkeys(_LOOSE.get(name, name) for name in names))


def _sung(known: TrackLabels) -> str:
    return {"female": "a female voice", "choir": "a choir"}.get(known.one("voice") or "", "a voice")


def _details(known: TrackLabels, say: Phrasebook) -> list[str]:
    """Further sentences in an order that varies a little."""
    rng, names, sentences = say.rng, known.clear_instruments, list[str]()
    if len(names) > 3 and rng.random() < _NAMES_MORE:
        things = listed([a(name) for name in names[2:5]])
        verb = "are" if is_plural(names[2]) else "is"
        sentences.append(rng.choice((f"I also hear {things}.", f"There {verb} also {things}.")))
    elif not known.instruments and known.guessed("instrument"):
        sentences.append(f"I think I hear {listed([a(name) for name in known.guessed('instrument')[:3]])}.")
    if (lead := known.one("lead")) in names and not known.is_solo:
        sentences.append(rng.choice((f"The {lead} plays the melody.", f"The {lead} leads.")))
    if not known.is_solo:
        sentences += _whether(known, "drums", _DRUMS, _NO_DRUMS, say)
    if not _surely(known, "singing"):
        sentences += _whether(known, "singing", (), _NO_VOICE, say)
    if moods := known.guessed("mood")[:3]:
        sentences.append(rng.choice(("It sounds {0}.", "The mood seems {0}.")).format(listed(moods)))
    if energy := next(iter(known.guessed("energy")), None):
        words = {"low": "gentle and calm", "medium": "moderately energetic", "high": "powerful and energetic"}
        sentences.append(rng.choice(("It seems {0}.", "The music is {0}, I would say.")).format(words[energy]))
    if not known.one("genre") and (genres := known.guessed("genre")[:2]):
        kinds = " or ".join(as_kind(genre) for genre in genres)
        sentences.append(rng.choice(("It is probably {0}.", "It sounds like {0}.")).format(kinds))
    if kind := known.one("production"):
        sentences.append("The sound is acoustic." if kind == "acoustic" else "The sound is electric or electronic.")
    if fitting := known.sure("use") or known.guessed("use"):
        sentences.append(say.pick("uses", "answers", use=rng.choice(fitting)))
    return sentences[: rng.randint(4, 6)]


def _whether(known: TrackLabels, what: str, yes: tuple[str, ...], no: tuple[str, ...], say: Phrasebook) -> list[str]:
    """A sentence on drums or singing: by label where it is heard beyond doubt, else as a tagger guesses."""
    label, heard = (known.has_drums, known.drums_heard) if what == "drums" else (known.has_voice, known.sings)
    if label is None and heard is not None:
        return [say.rng.choice(_MAYBE[what, heard])]
    sure = _surely(known, what)
    options = () if sure is None else yes if sure else no
    return [say.rng.choice(options)] if options else []
