"""Written text held against what was asked of it: the texts that must occur, its length, the limit of its length."""

import re
from collections.abc import Sequence

from riyaz.data import normalise


def slots(prediction: str, wanted: Sequence[str]) -> float:
    """The share of the wanted texts that occur in the prediction, case and white space folded; 1 for none.

    A number must stand alone ("5" is not in "15" or "2.5"); a word may have an ending ("bike" is in "bikes").
    """
    text = normalise(prediction)
    return sum(_occurs(normalise(each), text) for each in wanted) / len(wanted) if wanted else 1.0


def _occurs(wanted: str, text: str) -> bool:
    before = r"(?<!\d)(?<!\d[.,])" if wanted[:1].isdigit() else ""
    behind = r"(?!\d)(?![.,]\d)" if wanted[-1:].isdigit() else ""
    return re.search(before + re.escape(wanted) + behind, text) is not None


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
