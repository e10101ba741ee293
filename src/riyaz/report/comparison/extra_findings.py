"""Retrieval, seeds, the data curve, overfitting, and answers alone and in a batch: tables and lines of all reports."""

from riyaz.report.words import count, duration, interval, metric_name, number, signed, tenths
from riyaz.results import ArmResult, Comparison, CurveScore, Retrieval

CURVE_TITLE = "Would more rows help?"
RETRIEVAL_NOTE = (
    "Recall and MRR are over all test rows that name their documents. Closed book, retrieved and right documents are "
    "scores without passages (answered freely), with the retrieved passages and with the right ones, on the number of "
    "rows in the table; if any test rows name their documents, only such rows are used. Grounded is how much the "
    "passages raise the log-probability of the answer, in nats per token, on some of them; no judge model is used."
)
RISE, RISE_SHARE = 0.02, 0.1  # of the validation loss above its lowest, in nats and as a share of it, that is said
RECENT = 5  # steps whose mean training loss is compared
SCORES = ("closed book", "retrieved", "right documents")

Table = tuple[list[str], list[list[str]]]  # titles, rows


def retrieving(arms: list[ArmResult]) -> list[tuple[ArmResult, Retrieval]]:
    """Every arm whose retrieval was measured, with it."""
    return [(arm, arm.retrieval) for arm in arms if arm.retrieval is not None]


def recall_points(retrieval: Retrieval) -> list[tuple[int, float]]:
    """(k, recall), smallest k first."""
    return sorted((int(k), recall) for k, recall in (retrieval.recall or {}).items() if k.isdecimal())


def contexts(retrieval: Retrieval) -> tuple[float | None, float | None, float | None]:
    """Scores in the order of SCORES: without passages, with retrieved passages, with the right documents."""
    return retrieval.closed_book, retrieval.retrieved, retrieval.oracle


def retrieval_table(arms: list[ArmResult]) -> Table:
    """All retrieval figures, one row per arm that retrieves."""
    pairs = retrieving(arms)
    ranks = sorted({k for _, retrieval in pairs for k, _ in recall_points(retrieval)})
    titles = ["method", "rows", "passages", *(f"recall@{k}" for k in ranks), "MRR", *SCORES, "grounded, nats"]
    rows = [
        [arm.name, number(retrieval.rows), number(retrieval.k),
         *(number(dict(recall_points(retrieval)).get(k), 3) for k in ranks),
         *(number(score, 3) for score in (retrieval.mrr, *contexts(retrieval))), signed(retrieval.grounded_nats)]
        for arm, retrieval in pairs
    ]  # fmt: skip
    return titles, rows


def retrieval_lines(arms: list[ArmResult]) -> list[str]:
    """`rag, 5 passages: recall@1 0.91 @5 1.00, MRR 0.95; closed book 0.00, retrieved 0.21 (30 rows)`, one per arm."""
    lines = []
    for arm, retrieval in retrieving(arms):
        grounded = _grounded(retrieval.grounded_nats, retrieval.grounded_rows)
        parts = [part for part in (_ranks(retrieval), _scores(retrieval), grounded) if part]
        if parts:
            lines.append(f"{arm.name}, {count(retrieval.k, 'passage')}: {'; '.join(parts)}")
    return lines


def earlier_line(arm: ArmResult) -> str:
    """`accuracy 0.830 before, 0.790 after, on 60 rows (−0.040, 95 %: −0.101 to +0.021)`; "" where training went on from
    no artifact, or its task was not measured."""
    earlier = arm.earlier
    if earlier is None:
        return ""
    scores = f"{metric_name(earlier.metric)} {number(earlier.before, 3)} before, {number(earlier.after, 3)} after"
    change = f"{signed(earlier.after - earlier.before)}, 95 %: {signed(earlier.low)} to {signed(earlier.high)}"
    known = f"; {count(earlier.learned, 'row')} of them were trained on" if earlier.learned else ""
    return f"{scores}, on {count(earlier.rows, 'row')} ({change}){known}"


def teacher_line(arm: ArmResult) -> str:
    """`few-shot 0.860 at 110.9 ms an answer, distil 0.840, on 200 rows (−0.020, 95 %: −0.051 to +0.010); it answered 4
    of 4 prompts in 1 s, as texts`; "" for an arm that learned from no teacher."""
    teacher = arm.teacher
    if teacher is None:
        return ""
    taught = f"answered {teacher.answered:,} of {count(teacher.prompts, 'prompt')} in {duration(teacher.seconds)}"
    taught += ", with probabilities" if teacher.soft else ", as texts"
    if teacher.score is None or teacher.difference is None:
        return f"{teacher.name} {taught}"
    speed = f" at {tenths(teacher.ms_per_answer)} ms an answer" if teacher.ms_per_answer else ""
    scores = f"{teacher.name} {number(teacher.score, 3)}{speed}, {arm.name} {number(teacher.student, 3)}"
    change = f"{signed(teacher.difference)}, 95 %: {signed(teacher.low)} to {signed(teacher.high)}"
    return f"{scores}, on {count(teacher.rows, 'row')} ({change}); it {taught}"


def _ranks(retrieval: Retrieval) -> str:
    """Recall at the smallest k and at the largest k that the prompt holds, then MRR."""
    points = dict(recall_points(retrieval))
    ranks = sorted({min(points), max((k for k in points if k <= retrieval.k), default=min(points))}) if points else []
    figures = ["recall" + " ".join(f"@{k} {number(points[k], 2)}" for k in ranks)] if ranks else []
    figures += [f"MRR {number(retrieval.mrr, 2)}"] if retrieval.mrr is not None else []
    return _on(", ".join(figures), retrieval.named_rows)


def _scores(retrieval: Retrieval) -> str:
    pairs = zip(SCORES, contexts(retrieval), strict=True)
    scores = ", ".join(f"{title} {number(score, 2)}" for title, score in pairs if score is not None)
    return _on(scores, retrieval.rows)


def _grounded(nats: float | None, rows: float | None) -> str:
    if nats is None:
        return ""
    direction = "likelier" if nats >= 0 else "less likely"
    return _on(f"passages make the answer {number(abs(nats), 2)} nats/token {direction}", rows)


def _on(figures: str, rows: float | None) -> str:
    return f"{figures} ({count(rows, 'row')})" if figures and rows is not None else figures


def seeds(arm: ArmResult) -> str:
    """`0.693 with seed 0, 0.688 with seed 1`; empty for an arm with one seed."""
    return ", ".join(f"{number(one.score, 3)} with seed {one.seed}" for one in arm.seeds or [])


def flips_line(arms: list[ArmResult]) -> str:
    """`lora: 1 of 8 answers differ from those in a batch, 0 scores; few_shot, full: none of 8`; empty if no arm has
    answered rows alone."""
    counts = [(arm.name, arm.batch_flips) for arm in arms if arm.batch_flips is not None]
    parts = []
    for method, flips in counts:
        if flips.answers:
            what = f"{flips.answers} of {flips.rows} answers differ from those in a batch"
            parts.append(f"{method}: {what}, {count(flips.scores, 'score')}")
    same = [(method, flips.rows) for method, flips in counts if not flips.answers]
    if same:
        rows = min(rows for _, rows in same)
        what = f"none of {rows}" if parts else f"all {rows} answers are those in a batch"
        parts.append(f"{', '.join(method for method, _ in same)}: {what}")
    return "; ".join(parts)


def curve_points(comparison: Comparison) -> list[CurveScore]:
    """The data curve, fewest rows first; empty when it has fewer than two points."""
    points = sorted(comparison.data_curve or [], key=lambda point: point.rows)
    return points if len(points) > 1 else []


def curve_table(comparison: Comparison) -> Table:
    """The data curve as a table; no rows when it was not measured."""
    rows = [[number(point.rows), number(point.score, 3), interval(point)] for point in curve_points(comparison)]
    return ["training rows", metric_name(comparison.metric), "95 % interval"], rows


def curve_line(comparison: Comparison) -> str:
    """`lora: 0.338 on 75, 0.375 on 150, 0.450 on 300 training rows`; empty when it was not measured."""
    scores = [f"{number(point.score, 3)} on {number(point.rows)}" for point in curve_points(comparison)]
    return f"{comparison.curve_method}: {', '.join(scores)} training rows" if scores else ""


def curve_note(comparison: Comparison) -> str:
    """The caption of the data curve."""
    trained = f"{comparison.curve_method} trained on parts of the training rows"
    return f"Scores of {trained}, judged on the same test rows."


def overfitting_lines(arms: list[ArmResult]) -> list[str]:
    """A sentence for every method whose validation loss rose after its lowest point while the training loss fell; none
    for one that is judged by accuracy, which may go on rising."""
    return [line for arm in arms if (line := _overfitting(arm))]


def _overfitting(arm: ArmResult) -> str:
    judged = [(point.step, point.valid_loss) for point in arm.curve if point.valid_loss is not None]
    if len(judged) < 2 or any(point.valid_accuracy is not None for point in arm.curve):
        return ""
    (best, lowest), (last, end) = min(judged, key=lambda point: point[1]), judged[-1]
    losses = [(point.step, point.loss) for point in arm.curve if point.loss is not None]
    before = [loss for step, loss in losses if step <= best][-RECENT:]
    after = [loss for step, loss in losses if step > best][-RECENT:]
    if end - lowest < max(RISE, RISE_SHARE * lowest) or not after or (before and _mean(after) >= _mean(before)):
        return ""
    rose = f"from {number(lowest, 2)} at step {number(best)} to {number(end, 2)} at step {number(last)}"
    fell = "while its training loss fell: it began to learn the training rows by heart"
    chosen = f" The weights of step {number(best)} are kept." if arm.chosen.get("best_step") == best else ""
    return f"{arm.name} overfitted: its validation loss rose {rose} {fell}.{chosen}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def worst_slice_line(comparison: Comparison) -> str:
    """The slice on which the pick scores lowest, and a warning where another arm is better there; empty without one."""
    worst = comparison.worst_slice
    if worst is None or comparison.pick is None:
        return ""
    ends = f"{number(worst.ci_low, 3)} to {number(worst.ci_high, 3)}"
    said = (
        f"{comparison.pick} scores lowest on {worst.name}: {number(worst.score, 3)} ({ends}) on {number(worst.n)} rows"
    )
    if worst.better is None or worst.lead is None:
        return f"{said}; no other method is better there beyond chance."
    lead = f"{signed(worst.lead)} ({signed(worst.lead_low)} to {signed(worst.lead_high)})"
    return f"Warning: {said}, where {worst.better} is better by more than chance: {lead}."
