"""What a comparison found beside the scores, for all three reports: retrieval, further seeds, fewer training rows."""

from riyaz.report.words import interval, metric_name, number, signed
from riyaz.results import ArmResult, Comparison, CurveScore, Retrieval

CURVE = "lora"  # whose scores the data curve holds: `compare` draws no other, and the document does not say
CURVE_TITLE = "Would more rows help?"
CURVE_NOTE = f"Scores of {CURVE} trained on parts of the training rows, judged on the same test rows."
RETRIEVAL_NOTE = (
    "Recall and MRR are over all test rows that name documents. Closed book, retrieved and right documents are scores "
    "on so many rows, which all name their documents where some do; closed book answers freely. Grounded: how much "
    "the passages raise the log-probability of the answer, in nats a token, on some of them; no judge is asked."
)
SCORES = ("closed book", "retrieved", "right documents")

Table = tuple[list[str], list[list[str]]]  # titles, rows


def retrieving(arms: list[ArmResult]) -> list[tuple[str, Retrieval]]:
    """Method and retrieval of the arms at whose retrieval was looked."""
    return [(arm.method, arm.retrieval) for arm in arms if arm.retrieval is not None]


def recall_points(found: Retrieval) -> list[tuple[int, float]]:
    """(k, recall), smallest k first."""
    return sorted((int(k), recall) for k, recall in (found.recall or {}).items() if k.isdecimal())


def contexts(found: Retrieval) -> tuple[float | None, float | None, float | None]:
    """Scores without passages, with the retrieved ones and with the right documents, as in SCORES."""
    return found.closed_book, found.retrieved, found.oracle


def retrieval_table(arms: list[ArmResult]) -> Table:
    """Every figure of every arm that retrieves; no rows where none does."""
    having = retrieving(arms)
    ranks = sorted({k for _, found in having for k, _ in recall_points(found)})
    titles = ["method", "rows", "passages", *(f"recall@{k}" for k in ranks), "MRR", *SCORES, "grounded, nats"]
    rows = [
        [method, number(found.rows), number(found.k), *(number(dict(recall_points(found)).get(k), 3) for k in ranks),
         *(number(score, 3) for score in (found.mrr, *contexts(found))), signed(found.grounded_nats)]
        for method, found in having
    ]  # fmt: skip
    return titles, rows


def retrieval_lines(arms: list[ArmResult]) -> list[str]:
    """`rag, 5 passages: recall@1 0.91 @5 1.00, MRR 0.95; closed book 0.00, retrieved 0.21 (30 rows)`, one an arm."""
    lines = []
    for method, found in retrieving(arms):
        said = [_found(found), _scores(found), _grounded(found.grounded_nats, found.grounded_rows)]
        if any(said):
            lines.append(f"{method}, {_count(found.k, 'passage')}: {'; '.join(filter(None, said))}")
    return lines


def _found(found: Retrieval) -> str:
    """recall at one passage and at no more than the prompt holds, of all that the tables show, and MRR."""
    points = dict(recall_points(found))
    ranks = sorted({min(points), max((k for k in points if k <= found.k), default=min(points))}) if points else []
    said = ["recall" + " ".join(f"@{k} {number(points[k], 2)}" for k in ranks)] if ranks else []
    said += [f"MRR {number(found.mrr, 2)}"] if found.mrr is not None else []
    return _on(", ".join(said), found.named_rows)


def _scores(found: Retrieval) -> str:
    pairs = zip(SCORES, contexts(found), strict=True)
    return _on(", ".join(f"{title} {number(score, 2)}" for title, score in pairs if score is not None), found.rows)


def _grounded(nats: float | None, rows: float | None) -> str:
    if nats is None:
        return ""
    way = "likelier" if nats >= 0 else "less likely"
    return _on(f"passages make the answer {number(abs(nats), 2)} nats/token {way}", rows)


def _on(said: str, rows: float | None) -> str:
    return f"{said} ({_count(rows, 'row')})" if said and rows is not None else said


def _count(many: float, what: str) -> str:
    return f"{number(many)} {what}" + ("" if many == 1 else "s")


def seeds(arm: ArmResult) -> str:
    """`0.693 with seed 0, 0.688 with seed 1` where an arm was trained with several; else nothing."""
    return ", ".join(f"{number(one.score, 3)} with seed {one.seed}" for one in arm.seeds or [])


def curve_points(comparison: Comparison) -> list[CurveScore]:
    """The data curve, fewest rows first; [] where it has fewer than two points, which say nothing."""
    points = sorted(comparison.data_curve or [], key=lambda point: point.rows)
    return points if len(points) > 1 else []


def curve_table(comparison: Comparison) -> Table:
    """The data curve in figures; no rows where it was not measured."""
    rows = [[number(point.rows), number(point.score, 3), interval(point)] for point in curve_points(comparison)]
    return ["training rows", metric_name(comparison.metric), "95 % interval"], rows


def curve_line(comparison: Comparison) -> str:
    """`lora: 0.338 on 75, 0.375 on 150, 0.450 on 300 training rows`; nothing where it was not measured."""
    said = [f"{number(point.score, 3)} on {number(point.rows)}" for point in curve_points(comparison)]
    return f"{CURVE}: {', '.join(said)} training rows" if said else ""
