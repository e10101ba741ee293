"""report.html of a comparison: one page without other files, made from compare.json and the answers of each arm.

Data enters it as escaped text (`markup`) or as a JSON block that page.js shows with textContent; `page` makes the
file and its content security policy.
"""

from typing import Any

from riyaz.report import details, extra_findings, pictures, retrieval_pictures
from riyaz.report.arms import about, best_for, megabytes, milliseconds, training
from riyaz.report.markup import Markup, element, join, json_block
from riyaz.report.page import Section, asset, page, tile
from riyaz.report.tables import figure, grid, numbers
from riyaz.report.words import (
    around_pick,
    duration,
    fit_seconds,
    floor_line,
    forgetting,
    headline,
    interval,
    metric_name,
    number,
    role,
    tenths,
    troubles,
    verdict,
)
from riyaz.results import Answer, ArmResult, Comparison

RIGHT = 0.5  # a row with at least this score counts as right in the example browser
STATUS = {"ok": "", "cut": "cut short", "failed": "failed", "skipped": "skipped"}


def render(comparison: Comparison, answers: dict[str, list[Answer]]) -> str:
    """The whole page; `answers` holds the answered rows of each method."""
    return page(
        f"Riyaz: {headline(comparison)}",
        _head(comparison),
        _sections(comparison, answers),
        "Made by riyaz from compare.json; this file fetches nothing.",
        style=asset("page.css"),
        script=asset("page.js"),
        data=json_block(_browser_data(comparison, answers)),
    )


def _sections(comparison: Comparison, answers: dict[str, list[Answer]]) -> list[Section]:
    arms = comparison.ranked
    return [
        ("arms", "The arms", "All arms, measured", _arms(comparison, arms)),
        ("cost", "Quality and cost", "Quality against the cost of an answer", _quality(comparison, arms)),
        ("training", "Training", "Learning and forgetting", _training(comparison, arms)),
        ("slices", "Slices", "Scores per slice", _slices(comparison.pick, arms)),
        ("retrieval", "Retrieval", "Retrieval", _retrieval(comparison, arms)),
        ("more-rows", "More rows", extra_findings.CURVE_TITLE, _data_curve(comparison)),
        ("examples", "Examples", "Where the arms disagree", _examples(comparison, answers)),
        ("data", "Data", "The data", details.data(comparison.data)),
        ("pairs", "Pairs", "Arms in pairs, on the same rows", details.pairs(comparison.pairs)),
        ("details", "Details", "The arms in detail", details.arms(arms)),
        ("made", "How it was measured", "How it was measured", _made(comparison)),
        ("caveats", "Caveats", "What to keep in mind", details.keep_in_mind(comparison)),
    ]


def _made(comparison: Comparison) -> Markup:
    return details.made(
        comparison.command, comparison.seconds, comparison.estimate_seconds, comparison.model, comparison.hardware,
        comparison.versions,
    )  # fmt: skip


def _head(comparison: Comparison) -> Markup:
    """The pick, the sentences of the pick rule, and the key figures of the picked arm."""
    pick = comparison.pick
    arm = next((arm for arm in comparison.arms if arm.method == pick), None)
    model = comparison.model.name if comparison.model else ""
    before, after = around_pick(comparison)
    certified = arm is not None and comparison.decision == "certified"
    tiles = []
    if arm:
        tiles = [
            (metric_name(comparison.metric), number(arm.score, 3), f"95 %: {interval(arm)}"),
            ("time per answer", milliseconds(arm.ms_per_answer), "one answer at a time"),
            ("time to make it", duration(fit_seconds(arm) or None), "search and training"),
            (
                "size on disk",
                megabytes(arm.artifact_mb),
                "without the base model" if pick != "full" else "a whole model",
            ),
        ]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · comparison", f" · {model}" if model else "",
                class_="over"),
        element("h1", before, _name(pick) if pick else None, after,
                element("span", "certified", class_="badge sure") if certified else None),
        element("p", verdict(comparison), class_="lead"),
        element("dl", *(tile(*one) for one in tiles), class_="tiles") if tiles else None,
    )  # fmt: skip


def _name(method: str) -> Markup:
    """A method's name after a dot in its colour."""
    dot = element("span", class_=f"dot c{about(method).colour}", aria_hidden="true")
    return element("span", dot, method, class_="method")


def _arms(comparison: Comparison, arms: list[ArmResult]) -> Markup:
    """One row per arm: training, memory, score, forgetting, latency, size, what it suits; a card on narrow screens."""
    if not arms:
        return element("p", "No arm took part.")
    metric, pick, called = metric_name(comparison.metric), comparison.pick, role(comparison)
    titles = ["method", "training needed", "resources", metric, "forgetting", "speed", "artifact", "best for"]
    head = element("tr", *(element("th", title, scope="col", role="columnheader") for title in titles), role="row")
    rows = []
    for arm in arms:
        cells = [
            training(arm) if arm.status in ("ok", "cut") else "–",
            _lines(megabytes(arm.peak_rss_mb), _making(arm)),
            _score(arm),
            _lines(forgetting(arm), "nats per token" if arm.forgetting_nats else None),
            _lines(milliseconds(arm.ms_per_answer), "per answer" if arm.ms_per_answer else None),
            _lines(megabytes(arm.artifact_mb)),
            best_for(arm, arms, pick, called),
        ]  # fmt: skip
        elements = [element("th", _title(arm, called if arm.method == pick else ""), scope="row", role="rowheader")]
        elements += [
            element("td", cell, role="cell", data_label=title) for title, cell in zip(titles[1:], cells, strict=True)
        ]
        rows.append(element("tr", *elements, role="row", class_="picked" if arm.method == pick else None))
    table = element(
        "table",
        element("caption", "Best score first. Intervals: 95 %. Forgetting: the rise of the loss on general text."),
        element("thead", head, role="rowgroup"), element("tbody", *rows, role="rowgroup"), role="table", class_="arms",
    )  # fmt: skip
    wrapped = element("div", table, class_="wide-table", role="region", aria_label="The arms", tabindex="0")
    line = floor_line(comparison)
    return join(wrapped, element("p", line, class_="note") if line else None, _troubles(comparison.arms))


def _title(arm: ArmResult, called: str) -> Markup:
    """The arm's name, what it is called if it is picked, its status if it is not ok, and what its method is."""
    status = STATUS[arm.status]
    sure = "sure" if called == "the pick" else "unsure"
    picked = element("span", called, class_=f"badge {sure}") if called else None
    flagged = element("span", status, class_="badge unsure") if status else None
    return join(_name(arm.method), picked, flagged, element("span", about(arm.method).what, class_="what"))


def _making(arm: ArmResult) -> str:
    seconds = fit_seconds(arm)
    if arm.peak_rss_mb is None:
        return ""
    return "peak memory" + (f", {duration(seconds)} to make it" if seconds else "")


def _lines(first: object, second: object = None) -> Markup:
    return join(element("b", first), element("span", second, class_="under") if second else None)


def _score(arm: ArmResult) -> Markup:
    seeds = extra_findings.seeds(arm)
    return join(
        _lines(number(arm.score, 3), interval(arm) if arm.ci_low is not None else None),
        pictures.interval_bar(arm),
        element("span", seeds, class_="under") if seeds else None,
    )


def _troubles(arms: list[ArmResult]) -> Markup | None:
    items = [
        element("li", element("b", method), f" {STATUS[status]}: {reason}") for method, status, reason in troubles(arms)
    ]
    return element("ul", *items, class_="troubles") if items else None


def _quality(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric, pick = metric_name(comparison.metric), comparison.pick
    drawn = [
        pictures.quality_cost(arms, pick, metric, w, n) for w, n in ((pictures.FULL, "qw"), (pictures.NARROW, "qn"))
    ]
    if not drawn[0]:
        return None
    rows = [[a.method, number(a.score, 3), interval(a), tenths(a.ms_per_answer)] for a in arms]
    return figure(
        drawn,
        "Up is better, left is faster. A hollow mark: another arm is at least as good and as fast. A filled mark: no "
        "other arm is; the dashed line joins these.",
        numbers(["method", metric, "95 % interval", "ms per answer"], rows),
    )  # fmt: skip


def _training(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric, pick = metric_name(comparison.metric), comparison.pick
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    curves = [pictures.learning(arms, pick, width, f"l{n}") for width, n in widths]
    lost = [pictures.forgetting(arms, pick, metric, width, f"f{n}") for width, n in widths]
    figures = []
    if curves[0]:
        points = [
            [arm.method, number(point.step), number(point.loss, 4), number(point.valid_loss, 4)]
            for arm in arms
            for point in arm.curve
            if point.valid_loss is not None
        ]
        table = numbers(["method", "step", "training loss", "validation loss"], points)
        figures.append(figure(curves, "The step with the lowest validation loss is kept. Faint: training loss.", table))
    if lost[0]:
        rows = [[arm.method, number(arm.score, 3), forgetting(arm), number(arm.kl_task, 3)] for arm in arms]
        table = numbers(["method", metric, "nats per token", "KL to the base on the task"], rows)
        figures.append(
            figure(lost, "Up is better, left forgets less. At zero, the weights are the base model's.", table)
        )
    return element("div", *figures, class_="pair") if figures else None


def _slices(pick: str | None, arms: list[ArmResult]) -> Markup | None:
    widths = ((pictures.FULL, "sw"), (pictures.NARROW, "sn"))
    drawn = [pictures.slices(arms, pick, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    sliced = [arm for arm in arms if arm.slices]
    titles = list(dict.fromkeys(title for arm in sliced for title in arm.slices))
    rows = []
    for title in titles:
        scores = [arm.slices.get(title) for arm in sliced]
        count = next((entry.n for entry in scores if entry and entry.n is not None), None)
        rows.append([title, number(count), *(number(entry.score if entry else None, 3) for entry in scores)])
    note = "One panel per slice, with its number of test rows; one line per arm."
    if len(titles) > pictures.SLICES_SHOWN:
        note += f" Shown are the {pictures.SLICES_SHOWN} largest of {len(titles)} slices; the table has all."
    return figure(drawn, note, numbers(["slice", "rows", *(arm.method for arm in sliced)], rows))


def _retrieval(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric = metric_name(comparison.metric)
    pairs = extra_findings.retrieving(arms)
    if not pairs:
        return None
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    drawn = [
        ([retrieval_pictures.recall(pairs, width, f"r{n}") for width, n in widths],
         "Recall at k: how often the right document is among the first k passages."),
        ([retrieval_pictures.contexts(pairs, metric, width, f"o{n}") for width, n in widths],
         f"The {metric} without passages, with the retrieved passages and with the right documents in the prompt."),
    ]  # fmt: skip
    figures = [figure(pair, caption, None) for pair, caption in drawn if pair[0]]
    table = grid(*extra_findings.retrieval_table(arms), "Retrieval in figures")
    return join(element("div", *figures, class_="pair"), table, element("p", extra_findings.RETRIEVAL_NOTE))


def _data_curve(comparison: Comparison) -> Markup | None:
    metric = metric_name(comparison.metric)
    widths = ((pictures.HALF, "dw"), (pictures.NARROW, "dn"))
    drawn = [retrieval_pictures.data_curve(comparison, metric, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    curve = figure(drawn, extra_findings.CURVE_NOTE, numbers(*extra_findings.curve_table(comparison)))
    return element("div", curve, class_="pair")


def _examples(comparison: Comparison, answers: dict[str, list[Answer]]) -> Markup | None:
    """The empty example browser, hidden until page.js fills it."""
    if not any(answers.values()):
        return None
    methods = _answering(comparison, answers)
    names = [("all", "all rows"), ("disagree", "arms disagree"), ("wrong", f"{role(comparison)} is wrong")]
    names += [(f"only:{place}", f"only {method} is right") for place, method in enumerate(methods)]
    slices = sorted({row.slice for rows in answers.values() for row in rows if row.slice is not None})
    form = element(
        "form",
        _choice("show", "Show", names),
        _choice("slice", "Slice", [("", "every slice"), *((f"={name}", name) for name in slices)]) if slices else None,
        element("label", "Search", element("input", type="search", id="search", autocomplete="off")),
        id="filter", role="search", aria_label="Examples",
    )  # fmt: skip
    return join(
        element("noscript", element("p", "Browsing the examples needs JavaScript; the rest of this page does not. "
                                    "Every row is in predictions.jsonl.", class_="note")),
        element("div", element("p", f"An answer with a score of at least {RIGHT} counts as right here."), form,
                element("p", id="count", role="status"), element("ol", id="rows"),
                element("button", "Show more", type="button", id="more"), id="browser", hidden=True),
    )  # fmt: skip


def _choice(key: str, title: str, options: list[tuple[str, str]]) -> Markup:
    return element(
        "label", title, element("select", *(element("option", name, value=value) for value, name in options), id=key)
    )


def _answering(comparison: Comparison, answers: dict[str, list[Answer]]) -> list[str]:
    """The methods that have answers, in the order of the arms table."""
    return [arm.method for arm in comparison.ranked if answers.get(arm.method)]


def _browser_data(comparison: Comparison, answers: dict[str, list[Answer]]) -> dict[str, Any]:
    """The JSON that page.js reads: one entry per test row, joined by `where`, with the answer of every method."""
    methods = _answering(comparison, answers)
    rows: dict[str, dict[str, Any]] = {}
    for place, method in enumerate(methods):
        for row in answers[method]:
            entry = rows.setdefault(row.where, {
                "where": row.where, "prompt": row.prompt, "answers": row.answers, "slice": row.slice,
                "said": [None] * len(methods),
            })  # fmt: skip
            if entry["said"][place] is None:  # an arm's first part is the one whose artifact is kept
                score = None if row.score is None else float(row.score)
                entry["said"][place] = [row.prediction, score, row.citations or []]
    pick = comparison.pick
    return {
        "methods": [{"name": method, "colour": about(method).colour} for method in methods],
        "pick": methods.index(pick) if pick in methods else None,
        "role": role(comparison),
        "right": RIGHT,
        "rows": list(rows.values()),
    }
