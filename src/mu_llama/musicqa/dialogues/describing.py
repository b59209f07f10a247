"""Descriptions: one sentence, several, and captions for text-to-music."""

from __future__ import annotations

from mu_llama.musicqa.dialogues.character import as_kind
from mu_llama.musicqa.dialogues.knowledge import FAMILIES, Knowledge
from mu_llama.musicqa.dialogues.wording import Say, is_plural
from mu_llama.musicqa.english import a, capital, listed
from mu_llama.prompts import Turn

_NAMES_MORE = 0.3
"""How often a long description goes on to instruments that are heard less."""
_DRUMS, _NO_DRUMS = ("There are drums.", "A drum kit plays."), ("There are no drums.", "No drums are heard.")


def short(known: Knowledge, say: Say) -> Turn | None:
    """One sentence."""
    text = _opening(known, say)
    return Turn(say.pick("short", "questions"), text) if text else None


def long(known: Knowledge, say: Say) -> Turn | None:
    """Several sentences, what is surest first."""
    sentences = [sentence for sentence in (_opening(known, say), *_details(known, say)) if sentence]
    return Turn(say.pick("long", "questions"), " ".join(sentences)) if len(sentences) >= 3 else None


def caption(known: Knowledge, say: Say) -> Turn | None:
    """Comma-separated, as text-to-music prompts are written."""
    parts: list[str] = []
    moods, genre = known.guessed("mood")[:2], known.one("genre") or next(iter(known.guessed("genre")), None)
    if genre:
        parts.append(genre)
    parts += list(known.instruments[:4] or known.guessed("instrument")[:2])
    if known.is_solo and known.instruments:
        parts[-1] = f"solo {parts[-1]}"
    if known.has_voice is not None and "choir" not in parts:
        parts.append(_sung(known) if known.has_voice else "instrumental")
    energy = next(iter(known.guessed("energy")), None)
    parts += [*moods, *([f"{energy} energy"] if energy else [])]
    return Turn(say.pick("caption", "questions"), capital(", ".join(parts)) + ".") if len(parts) >= 3 else None


def _opening(known: Knowledge, say: Say) -> str | None:
    names, genre = known.instruments, known.one("genre")
    guess, mood = next(iter(known.guessed("genre")), None), next(iter(known.guessed("mood")), None)
    rng = say.rng
    feel = f"; it sounds {mood}" if mood and rng.random() < 0.5 else ""
    if known.is_solo and names:
        what = rng.choice(("A solo {0}", "{1} playing alone", "A piece for solo {0}")).format(
            names[0], capital(a(names[0]))
        )
        tail = f", {as_kind(genre)}" if genre and rng.random() < 0.5 else feel
        return f"{what}{tail}."
    if known.is_solo and known.has_voice:
        return rng.choice((f"{capital(_sung(known))} singing alone.", "Somebody sings alone, without instruments."))
    things = listed([a(name) for name in _players(known, say)[: rng.randint(2, 3)]])
    noun = rng.choice(("A piece of", "A track of", "Some"))
    if genre and as_kind(genre) != genre:
        opening = capital(a(genre))
    elif genre:
        opening = f"{noun} {genre}" if rng.random() < 0.6 else capital(genre)
    elif known.one("ensemble") in ("choir", "orchestra") and not names:
        opening = capital(a(str(known.one("ensemble"))))
    elif names:
        opening = capital(a(rng.choice(("piece", "track"))))
    elif guess:
        opening = f"A track that sounds like {guess}"
    else:
        return None
    heard = [things] if names else []
    if known.has_voice and "choir" not in names:
        heard.insert(0, _sung(known))
    return f"{opening} with {' and '.join(heard)}{feel}." if heard else f"{opening}{feel}."


_LOOSE = {member: family for family in ("guitar", "bass", "brass", "organ") for member in FAMILIES[family]}


def _players(known: Knowledge, say: Say) -> tuple[str, ...]:
    """Instruments from the most heard; those of a band are often named by family, as a listener would in a mix."""
    if known.one("ensemble") != "band" or say.rng.random() < 0.5:
        return known.instruments
    return tuple(dict.fromkeys(_LOOSE.get(name, name) for name in known.instruments))


def _sung(known: Knowledge) -> str:
    return {"female": "a female voice", "choir": "a choir"}.get(known.one("voice") or "", "a voice")


def _details(known: Knowledge, say: Say) -> list[str]:
    """Further sentences in an order that varies a little."""
    rng, names, sentences = say.rng, known.instruments, list[str]()
    if len(names) > 3 and rng.random() < _NAMES_MORE:
        things = listed([a(name) for name in names[3:6]])
        verb = "are" if is_plural(names[3]) else "is"
        sentences.append(rng.choice((f"I also hear {things}.", f"There {verb} also {things}.")))
    elif not names and known.guessed("instrument"):
        sentences.append(f"I think I hear {listed([a(name) for name in known.guessed('instrument')[:3]])}.")
    if (lead := known.one("lead")) and not known.is_solo:
        sentences.append(rng.choice((f"The {lead} plays the melody.", f"The {lead} leads.")))
    if known.has_drums is not None and not known.is_solo:
        sentences.append(rng.choice(_DRUMS if known.has_drums else _NO_DRUMS))
    if known.has_voice is False:
        sentences.append(rng.choice(("It is instrumental.", "Nobody sings.", "There are no vocals.")))
    if moods := known.guessed("mood")[:3]:
        sentences.append(rng.choice(("It sounds {0}.", "The mood seems {0}.")).format(listed(moods)))
    if energy := next(iter(known.guessed("energy")), None):
        words = {"low": "gentle and calm", "medium": "moderately energetic", "high": "powerful and energetic"}
        sentences.append(rng.choice(("It seems {0}.", "The music is {0}, I would say.")).format(words[energy]))
    if not known.one("genre") and (genres := known.guessed("genre")[:2]):
        sentences.append(rng.choice(("The genre is probably {0}.", "It sounds like {0}.")).format(" or ".join(genres)))
    if kind := known.one("production"):
        sentences.append("The sound is acoustic." if kind == "acoustic" else "The sound is electric or electronic.")
    if fitting := known.sure("use") or known.guessed("use"):
        sentences.append(say.pick("uses", "answers", use=rng.choice(fitting)))
    return sentences[: rng.randint(4, 6)]
