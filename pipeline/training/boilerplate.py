"""Placeholder until the rules are merged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.text.cleaning import TextRules


@dataclass(frozen=True)
class ListingText:
    texts: Mapping[str, str]
    others: Mapping[str, str]
    path: str
    category: int


@dataclass(frozen=True)
class LearnedRules:
    rules: TextRules
    summary: str = ""
    notes: Mapping[str, float | str] = field(default_factory=dict)


def learn_rules(listings: Sequence[ListingText]) -> LearnedRules:
    return LearnedRules(TextRules())
