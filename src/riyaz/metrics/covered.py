"""Written text held against what was asked of it: the texts that must occur, its length, the limit of its length."""

import re
from collections.abc import Sequence

from riyaz.data import normalise

STRAIGHT = str.maketrans("‘’“”", "''\"\"")  # quotes and apostrophes as typewriters have them


def slots(prediction: str, wanted: Sequence[str]) -> float:
    """The share of the wanted texts that occur in the prediction, 1 for none; case, white space and curly quotes are
    folded.

    A number must stand alone ("5" is not in "15", "2.5" or "a5"); a word may have an ending ("bike" is in "bikes") but
    no other beginning ("one" is not in "phone"). Scripts without capitals are taken to have no such boundaries.
    """
    text = _folded(prediction)
    return sum(_occurs(_folded(each), text) for each in wanted) / len(wanted) if wanted else 1.0


def _folded(text: str) -> str:
    return normalise(text).translate(STRAIGHT)


def _occurs(wanted: str, text: str) -> bool:
    place = text.find(wanted)
    while place >= 0 and not _stands(wanted, text[max(0, place - 2) : place], text[place + len(wanted) :][:2]):
        place = text.find(wanted, place + 1)
    return place >= 0


def _stands(wanted: str, before: str, behind: str) -> bool:
    """Whether a text between the two characters before and behind it stands for itself."""
    first, near = wanted[:1], before[-1:]
    if wanted[-1:].isdigit() and re.match(r"[.,]?\d", behind):
        return False
    if first.isdigit():
        return not _is_cased(near) and not re.search(r"\d[.,]?\Z", before)
    return not _is_cased(first) or not (_is_cased(near) or near.isdigit())


def _is_cased(letter: str) -> bool:
    """Whether a letter has a capital, as those of the scripts that put spaces between words."""
    return letter.upper() != letter.lower()


def length_ratio(prediction: str, answers: Sequence[str]) -> float:
    """The characters of the prediction over those of the accepted answer whose length is nearest."""
    length = len(prediction.strip())
    nearest = min((len(answer.strip()) for answer in answers), key=lambda count: abs(count - length))
    return length / max(1, nearest)


def first_words(text: str, most: int | None) -> str:
    """A text up to its `most`-th word, all of it for None: what stands behind a limit of length does not count (the
    rule of the Document Understanding Conferences)."""
    if most is None:
        return text
    kept = re.match(rf"(?:\s*\S+){{0,{most}}}", text)
    return kept[0] if kept else ""
