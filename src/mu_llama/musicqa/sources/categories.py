"""Tags that come without a category, put into one by the vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from mu_llama.labels.grounding import negates, terms_said
from mu_llama.labels.vocabulary import CATEGORIES, Term, terms_of_tag
from mu_llama.musicqa.sources.corpus_files import without_empty


def by_category(tags: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Sort tags into categories; a phrase goes with the first category it names, a denial to `other`.

    Example:
        >>> by_category(["violin", "slow tempo", "no drums", "weird"])
        {'instrument': ('violin',), 'tempo': ('slow tempo',), 'other': ('no drums', 'weird')}
    """
    sorted_tags: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for tag in tags:
        clean = " ".join(tag.split())
        if clean:
            sorted_tags[_category(clean)].append(clean)
    return without_empty(sorted_tags)


def absent_of(tags: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Give what tags deny, by category, in the vocabulary's words; what another tag names isn't among it.

    Example:
        >>> absent_of({"instrument": ["piano"], "other": ["no drums", "no vocals", "no piano"]})
        {'instrument': ('drums',), 'voice': ('voice',)}
    """
    named: set[str] = set()
    denied: list[Term] = []
    for category, values in tags.items():
        for tag in values:
            present, absent = terms_said(tag, is_genre=category == "genre")
            named.update(name for term in present for name in (term.name, *term.broader))
            denied += absent
    by_name: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    for term in denied:
        if term.name not in named:
            by_name[term.category].append(term.name)
    return without_empty(by_name)


@lru_cache(maxsize=65536)
def _category(tag: str) -> str:
    if negates(tag):
        return "other"
    found = {term.category for term in terms_of_tag(tag)}
    return next(
        (category for category in ("voice", "instrument", "genre", "tempo", "mood") if category in found), "other"
    )
