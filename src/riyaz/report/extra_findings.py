"""What a comparison found beside the scores, for all three reports: retrieval, further seeds, fewer training rows."""

from typing import Any

from riyaz.report.arms import known, measured
from riyaz.report.words import interval, metric_of, number, ranked, signed

CURVE = "lora"  # whose scores the data curve holds: `compare` draws no other, and the document does not say
CURVE_TITLE = "Would more rows help?"
CURVE_NOTE = f"Scores of {CURVE} trained on parts of the training rows, judged on the same test rows."
RETRIEVAL_NOTE = (
    "Recall and MRR are over all test rows that name documents. Closed book, retrieved and right documents are scores "
    "on so many rows, which all name their documents where some do; closed book answers freely. Grounded: how much "
    "the passages raise the log-probability of the answer, in nats a token, on some of them; no judge is asked."
)
SCORES = (("closed book", "closed_book"), ("retrieved", "retrieved"), ("right documents", "oracle"))

Table = tuple[list[str], list[list[str]]]  # titles, rows


def retrieving(arms: list[dict]) -> list[dict]:
    """The arms at whose retrieval was looked."""
    return [arm for arm in arms if isinstance(arm.get("retrieval"), dict) and arm["retrieval"]]


def recall_points(arm: dict) -> list[tuple[int, float]]:
    """(k, recall) of an arm that retrieves, smallest k first."""
    found: Any = (arm.get("retrieval") or {}).get("recall")
    if not isinstance(found, dict):
        return []
    return sorted((int(k), float(found[k])) for k in found if str(k).isdigit() and known(found, k) is not None)


def retrieval_table(document: dict) -> Table:
    """Every figure of every arm that retrieves; no rows where none does."""
    arms = retrieving(ranked(document))
    ranks = sorted({k for arm in arms for k, _ in recall_points(arm)})
    titles = ["method", "rows", "passages", *(f"recall@{k}" for k in ranks), "MRR", *(title for title, _ in SCORES),
              "grounded, nats"]  # fmt: skip
    rows = [
        [arm["method"], number(known(had, "rows")), number(known(had, "k")),
         *(number(dict(recall_points(arm)).get(k), 3) for k in ranks),
         *(number(known(had, key), 3) for key in ("mrr", *(key for _, key in SCORES))),
         signed(known(had, "grounded_nats"))]
        for arm in arms for had in [arm["retrieval"]]
    ]  # fmt: skip
    return titles, rows


def retrieval_lines(document: dict) -> list[str]:
    """`rag, 5 passages: recall@1 0.91 @5 1.00, MRR 0.95; closed book 0.00, retrieved 0.21 (30 rows)`, one an arm."""
    lines = []
    for arm in retrieving(ranked(document)):
        found = arm["retrieval"]
        passages = known(found, "k")
        said = [_found(arm), _scores(found), _grounded(known(found, "grounded_nats"), known(found, "grounded_rows"))]
        if any(said):
            name = str(arm["method"]) + (f", {_count(passages, 'passage')}" if passages is not None else "")
            lines.append(f"{name}: {'; '.join(filter(None, said))}")
    return lines


def _found(arm: dict) -> str:
    """recall at one passage and at no more than the prompt holds, of all that the tables show, and MRR."""
    points, most = dict(recall_points(arm)), known(arm["retrieval"], "k") or 0
    ranks = sorted({min(points), max((k for k in points if k <= most), default=min(points))}) if points else []
    mrr = known(arm["retrieval"], "mrr")
    said = ["recall" + " ".join(f"@{k} {number(points[k], 2)}" for k in ranks)] if ranks else []
    said += [f"MRR {number(mrr, 2)}"] if mrr is not None else []
    return _on(", ".join(said), known(arm["retrieval"], "named_rows"))


def _scores(found: dict) -> str:
    shown = [f"{title} {number(score, 2)}" for title, key in SCORES if (score := known(found, key)) is not None]
    return _on(", ".join(shown), known(found, "rows"))


def _grounded(nats: float | None, rows: float | None) -> str:
    if nats is None:
        return ""
    way = "likelier" if nats >= 0 else "less likely"
    return _on(f"passages make the answer {number(abs(nats), 2)} nats/token {way}", rows)


def _on(said: str, rows: float | None) -> str:
    return f"{said} ({_count(rows, 'row')})" if said and rows is not None else said


def _count(many: float, what: str) -> str:
    return f"{number(many)} {what}" + ("" if many == 1 else "s")


def seeds(arm: dict) -> str:
    """`0.693 with seed 0, 0.688 with seed 1` where an arm was trained with several; else nothing."""
    found = measured([seed for seed in arm.get("seeds") or [] if isinstance(seed, dict)], "seed", "score")
    return ", ".join(f"{number(seed['score'], 3)} with seed {seed['seed']:.0f}" for seed in found)


def curve_points(document: dict) -> list[dict]:
    """The data curve, fewest rows first; [] where it has fewer than two points, which say nothing."""
    points = [point for point in document.get("data_curve") or [] if isinstance(point, dict)]
    points = sorted(measured(points, "rows", "score"), key=lambda point: point["rows"])
    return points if len(points) > 1 else []


def curve_table(document: dict) -> Table:
    """The data curve in figures; no rows where it was not measured."""
    rows = [[number(point["rows"]), number(point["score"], 3), interval(point)] for point in curve_points(document)]
    return ["training rows", metric_of(document), "95 % interval"], rows


def curve_line(document: dict) -> str:
    """`lora: 0.338 on 75, 0.375 on 150, 0.450 on 300 training rows`; nothing where it was not measured."""
    said = [f"{number(point['score'], 3)} on {number(point['rows'])}" for point in curve_points(document)]
    return f"{CURVE}: {', '.join(said)} training rows" if said else ""
