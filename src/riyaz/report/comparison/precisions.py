"""What smaller weights cost an arm: the lines on the precision in which it is served, and on its merged model."""

from collections.abc import Sequence

from riyaz.json_files import from_json
from riyaz.report.comparison.arms import megabytes
from riyaz.report.words import number, signed, tenths
from riyaz.results import REFITTED, ArmResult, PrecisionScore, smallest_merged, smallest_precision


def served_line(arm: ArmResult) -> str:
    """`served in int8 (258 MB → 140 MB): +0.002 nats, 95 % below 0.006; int4 was worse by 0.040, 95 % below 0.052`;
    empty for an arm whose precision was not chosen."""
    stored = arm.chosen.get("precisions")
    scores = [from_json(PrecisionScore, each, "precisions") for each in stored] if isinstance(stored, list) else []
    if not scores:
        return ""
    first, best = scores[0], smallest_precision(scores)
    if best is first:
        return "; ".join([f"served in {first.precision} ({megabytes(first.mb)})", *map(_worse, scores[1:])])
    sizes = f"({megabytes(first.mb)} → {megabytes(best.mb)})"
    smaller = [each for each in scores[1:] if each.mb < best.mb]
    return "; ".join([f"served in {best.precision} {sizes}: {_cost(best)}", *map(_worse, smaller)])


def merged_line(arm: ArmResult) -> str:
    """`8.3 ms per answer, 7.1 with its adapter merged into the weights; merged in int8 (258 MB → 140 MB) 6.2 ms, +0.002
    nats, 95 % below 0.006: riyaz merge --precision int8 writes it`; empty for an arm without an adapter to merge."""
    if arm.merged_ms is None:
        return ""
    times = f"{tenths(arm.ms_per_answer)} ms per answer, {tenths(arm.merged_ms)}"
    lines = [f"{times} with its adapter merged into the weights", *_offered(arm.merged or [])]
    known = arm.merged and REFITTED in arm.chosen
    return "; ".join([*lines, "on validation rows, which it was trained on too"] if known else lines)


def merge_options(arm: ArmResult) -> list[str]:
    """The options of `riyaz merge` that write the smallest merged model that answers as well; [] where none does."""
    best = smallest_merged(arm.merged or [])
    return [] if best is None or best.precision == "auto" else ["--precision", best.precision]


def _offered(scores: Sequence[PrecisionScore]) -> list[str]:
    """The smallest merged model that answers as well, and by how much those that are smaller are worse."""
    best = smallest_merged(scores)
    if best is None or best.precision == "auto":
        return [f"merged in {_worse(each)}" for each in scores[2:]]
    size = f"{megabytes(scores[0].mb)} → {megabytes(best.mb)}"
    line = f"merged in {best.precision} ({size}) {tenths(best.ms_per_answer)} ms, {_cost(best)}"
    smaller = [each for each in scores[1:] if each.mb < best.mb]
    return [f"{line}: riyaz merge --precision {best.precision} writes it", *map(_worse, smaller)]


def _cost(score: PrecisionScore) -> str:
    return f"{signed(score.worse_by)} nats, 95 % below {number(score.at_most, 3)}"


def _worse(score: PrecisionScore) -> str:
    """What is said of a precision that does not pass: that it is worse, or that the rows do not say it is not."""
    if score.at_most is None:
        return f"{score.precision} was not chosen: one row says too little"
    worse, bound = "worse" if score.worse_by >= 0 else "better", number(score.at_most, 3)
    return f"{score.precision} was {worse} by {number(abs(score.worse_by), 3)}, 95 % below {bound}"
