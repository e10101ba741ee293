"""Answers that several training rows share, as riyaz.json keeps them: which, how many, and for which artifacts."""

from dataclasses import replace
from pathlib import Path

import pytest
from fit_context import TASK, fit_context

from riyaz.artifact import TextPart, WeightsPart
from riyaz.comparison.fit_part import COMMON_LENGTH, COMMON_ROWS, MOST_COMMON, _with_common
from riyaz.data import Example
from riyaz.methods.fitting.base import Context, Fitted

WRITTEN = replace(TASK, kind="free", labels=(), metric="chrf")


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    """Rows of 20 answers that are shared, of one that two rows share, and of one that is long."""
    answers = [f"answer {n}" for n in range(20)] * COMMON_ROWS + ["twice"] * 2 + ["x" * (COMMON_LENGTH + 1)] * 3
    rows = [
        Example(({"role": "user", "content": f"row {n}"},), (answer,), where=f"t:{n}")
        for n, answer in enumerate(answers)
    ]
    return fit_context(model_folder, tmp_path, train=tuple(rows), task=WRITTEN)


def test_the_short_ones_that_most_rows_share_are_kept(context: Context) -> None:
    kept = _with_common(Fitted(TextPart("a"), WeightsPart("lora")), context).common
    assert len(kept) == MOST_COMMON == 16 and set(kept) < {f"answer {n}" for n in range(20)}


def test_where_they_would_be_candidates_the_method_alone_chooses_them(context: Context) -> None:
    span = TextPart("a", passages=3, span_words=8)
    assert _with_common(Fitted(span, WeightsPart()), context) == span
    chosen = replace(span, common=("I do not know.",))
    assert _with_common(Fitted(chosen, WeightsPart()), context) == chosen


def test_without_generated_answers_none_are_kept(context: Context) -> None:
    assert not _with_common(Fitted(TextPart("a"), WeightsPart("copy")), context).common
    assert not _with_common(Fitted(TextPart("a"), WeightsPart()), replace(context, task=TASK)).common
