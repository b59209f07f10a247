"""Tags that come without a category, put into one by the vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from mu_llama.musicqa.grounding import negates
from mu_llama.musicqa.sources.finding import without_empty
from mu_llama.musicqa.vocabulary import CATEGORIES, terms_of_tag


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


@lru_cache(maxsize=65536)
def _category(tag: str) -> str:
    if negates(tag):
        return "other"
    found = {term.category for term in terms_of_tag(tag)}
    return next(
        (category for category in ("voice", "instrument", "genre", "tempo", "mood") if category in found), "other"
    )
