"""The same question put otherwise: replacements, another order, typos. All from a seed and the text itself."""

import random
import re
from collections.abc import Callable, Sequence

from riyaz.limits.templates import read_data

TYPOS = 2  # words with a typo
Change = Callable[[str], str]


def _draw(text: str, what: str) -> random.Random:
    return random.Random(f"{what}\x1f{text}")


def rephrased(text: str) -> str:
    """The text with every listed replacement that occurs in it, once each, the longest first."""
    pairs: Sequence[Sequence[str]] = read_data("wordings.json")["wordings"]
    other = {old.lower(): new for old, new in pairs}
    words = "|".join(sorted(map(re.escape, other), key=len, reverse=True))

    def exchange(match: re.Match[str]) -> str:
        new = other[match[0].lower()]
        return new[0].upper() + new[1:] if match[0][0].isupper() else new

    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", exchange, text, flags=re.IGNORECASE)


def reordered(text: str) -> str:
    """The sentences of a text in reverse order; of one sentence its two halves at a comma."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    if len(sentences) > 1:
        return " ".join(reversed(sentences))
    head, comma, tail = text.strip().rstrip(".?!").partition(", ")
    return f"{tail[:1].upper()}{tail[1:]}, {head[:1].lower()}{head[1:]}{text.strip()[-1:]}" if comma else text


def polite(text: str) -> str:
    """The text with a greeting before it or thanks behind it."""
    listed, draw = read_data("wordings.json"), _draw(text, "polite")
    return draw.choice(listed["before"]) + text if draw.random() < 0.5 else text + draw.choice(listed["after"])


def mistyped(text: str) -> str:
    """The text with two neighbouring letters exchanged in up to TYPOS words of four letters or more."""
    draw = _draw(text, "typo")
    places = list(re.finditer(r"[^\W\d_]{4,}", text))
    letters = list(text)
    for match in draw.sample(places, min(TYPOS, len(places))):
        at = draw.randrange(match.start() + 1, match.end() - 1)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


def lowered(text: str) -> str:
    """The text in small letters without a mark at its end."""
    return text.lower().rstrip(".?!")


CHANGES: dict[str, Change] = {
    "reworded": rephrased, "in another order": reordered, "with a greeting or thanks": polite, "with typos": mistyped,
    "in small letters": lowered,
}  # fmt: skip
