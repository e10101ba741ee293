"""Results as frames of pandas, which is imported only here."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from riyaz.errors import RiyazError
from riyaz.library.hints import in_words_of_python
from riyaz.report.words import has_bases
from riyaz.results import Answer, ArmResult

if TYPE_CHECKING:
    import pandas

# fields of an arm that are no figures
NESTED = {"slices", "extras", "chosen", "checks", "curve", "retrieval", "seeds", "batch_flips", "remeasured"}
USUAL = (
    "method", "base", "pick", "score", "ci_low", "ci_high", "train_seconds", "ms_per_answer", "peak_rss_mb",
    "forgetting_nats", "status",
)  # fmt: skip


def frame_of(rows: list[dict[str, Any]], wish: str, without: str) -> "pandas.DataFrame":
    """The rows as a frame of pandas. RiyazError when that is not installed: `wish` is what needs it, and `without` the
    attribute or method that gives the same without it."""
    try:
        import pandas
    except ImportError:
        hint = in_words_of_python(f"pip install pandas, or take {without}, which needs no pandas")
        raise RiyazError(f"{wish} needs pandas, which is not installed", hint=hint) from None
    return pandas.DataFrame(rows)


def arm_figures(arms: Sequence[ArmResult], pick: str | None, every: bool) -> list[dict[str, Any]]:
    """The figures of every arm: those of USUAL, or `every` one and the second scores."""
    rows = [_figures(arm, pick, has_bases(arms)) for arm in arms]
    return rows if every else [{name: row[name] for name in USUAL if name in row} for row in rows]


def _figures(arm: ArmResult, pick: str | None, bases: bool) -> dict[str, Any]:
    plain = {each.name: getattr(arm, each.name) for each in fields(arm) if each.name not in NESTED}
    base = plain.pop("base")
    head = {"method": plain.pop("method"), **({"base": base} if bases else {})}
    return {**head, "pick": arm.name == pick, **plain, **arm.extras}


def answer_figures(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The fields of answers, without those that none of them has."""
    rows = [asdict(answer) for answer in answers]
    held = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, [], {}, ()) for row in rows)]
    return [{name: row[name] for name in held} for row in rows]
