"""The top of a comparison's page: data, date, the pick in a sentence, the leading methods, key figures."""

import datetime
import re
from collections.abc import Sequence
from pathlib import PurePath

from riyaz.report.comparison import pictures
from riyaz.report.comparison.arms import about, megabytes, milliseconds
from riyaz.report.comparison.details import ROW_KINDS
from riyaz.report.media.markup import Markup, element
from riyaz.report.media.page import tile
from riyaz.report.words import (
    MISSING,
    around_pick,
    duration,
    fit_seconds,
    interval,
    metric_name,
    number,
    role,
    signed,
    verdict,
)
from riyaz.results import ArmResult, Comparison

LEADING = 3
SENTENCE = re.compile(r"(?<=[^.]\.) (?=[A-Z])")


def head(comparison: Comparison) -> Markup:
    """The header of the page."""
    picked = comparison.arm(comparison.pick)
    before, after = around_pick(comparison)
    sure = picked is not None and comparison.decision == "certified"
    first, *rest = SENTENCE.split(verdict(comparison), maxsplit=1)
    tiles = [tile(*one) for one in _figures(comparison) if one[1] != MISSING]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · comparison", class_="over"),
        element("h1", before, name(picked) if picked else None, after,
                element("span", "certified", class_="badge sure") if sure else None),
        element("p", _facts(comparison), class_="quiet facts-line"),
        element("p", first, class_="lead"),
        _leaders(comparison),
        element("dl", *tiles, class_="tiles") if tiles else None,
        element("p", *rest, class_="rest") if rest else None,
    )  # fmt: skip


def name(arm: ArmResult, text: str = "") -> Markup:
    """The name of an arm, or another text, after a dot in its method's colour."""
    dot = element("span", class_=f"dot c{about(arm).colour}", aria_hidden="true")
    return element("span", dot, text or arm.name, class_="method")


def _facts(comparison: Comparison) -> str:
    """Data set, date, rows and model in a line."""
    data = comparison.data
    file = data.files.get("train")
    facts = ["/".join(PurePath(file.path).parts[-2:])] if file else []
    if comparison.date:
        facts.append(day(comparison.date))
    rows = [
        f"{number(data.rows[part])} {ROW_KINDS[part]}" for part in ("train", "valid", "test") if data.rows.get(part)
    ]
    if rows:
        facts.append(f"rows: {', '.join(rows)}")
    if comparison.model:
        names = comparison.bases or [comparison.model.name]
        facts.append(f"model{'s' if len(names) > 1 else ''}: {', '.join(names)}")
    return " · ".join(facts)


def day(date: str) -> str:
    """`2026-11-26` as `26 November 2026`; other texts unchanged."""
    try:
        parsed = datetime.date.fromisoformat(date[:10])
    except ValueError:
        return date
    return f"{parsed.day} {parsed:%B %Y}"


def thousand(ms: float | None) -> str:
    """The time of 1,000 answers one after another, from ms per answer."""
    return "<0.1 s" if ms is not None and 0 <= ms < 0.05 else duration(ms)


def lead_over(comparison: Comparison) -> tuple[str, str, str] | None:
    """The runner-up, the pick's lead over it, and the 95 % interval of the lead; None without a runner-up."""
    pick, other = comparison.pick, comparison.runner_up
    scores = {arm.name: arm.score for arm in comparison.arms}
    if pick is None or other is None:
        return None
    for pair in comparison.pairs:
        if set(pair.arms) == {pick, other}:
            ends = (pair.difference, pair.low, pair.high)
            lead, low, high = ends if pair.arms[0] == pick else (-ends[0], -ends[2], -ends[1])
            return other, signed(lead), f"95 %: {signed(low)} to {signed(high)}"
    one, two = scores.get(pick), scores.get(other)
    return None if one is None or two is None else (other, signed(one - two), "difference of the two scores")


def _figures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(title, figure, note) of the picked method."""
    arm = comparison.arm(comparison.pick)
    if arm is None:
        return []
    lead = lead_over(comparison)
    sure = f"95 %: {interval(arm)}" if arm.ci_low is not None else "of the test rows"
    weights = about(arm).weights
    whole = "" if not weights else "a whole model" if weights == "full" else "without the base model"
    return [
        (metric_name(comparison.metric), number(arm.score, 3), sure),
        *([(f"lead over {lead[0]}", *lead[1:])] if lead else []),
        ("cost of 1,000 answers", thousand(arm.ms_per_answer), f"of this CPU, {milliseconds(arm.ms_per_answer)} each"),
        ("time to make it", duration(fit_seconds(arm) or None), "search and training"),
        ("size on disk", megabytes(arm.artifact_mb), whole),
    ]


def _leaders(comparison: Comparison) -> Markup | None:
    """The methods with the highest scores, and the pick if it is not among them."""
    scored = [arm for arm in comparison.ranked if arm.score is not None]
    shown = [arm for place, arm in enumerate(scored) if place < LEADING or arm.name == comparison.pick]
    if len(scored) < 2:
        return None
    ends = pictures.score_limits(shown)
    return element(
        "ol", *(_leader(arm, comparison, ends) for arm in shown), class_="leaders", aria_label="Leading methods"
    )


def _leader(arm: ArmResult, comparison: Comparison, ends: tuple[float, float]) -> Markup:
    picked = arm.name == comparison.pick
    sure = "unsure" if comparison.decision == "undecided" else "sure"
    badge = element("span", role(comparison), class_=f"badge {sure}") if picked else None
    return element(
        "li",
        element("span", name(arm), badge),
        element("b", number(arm.score, 3)),
        pictures.interval_bar(arm, ends),
        element("span", interval(arm), class_="quiet"),
        class_="picked" if picked else None,
    )  # fmt: skip


def next_steps(commands: Sequence[tuple[str, str]]) -> Markup | None:
    """The commands to go on with: (what for, command line) each."""
    lines = [element("div", element("dt", what), element("dd", element("code", line))) for what, line in commands]
    return element("dl", *lines, class_="facts") if lines else None
