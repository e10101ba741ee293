"""report.html: one self-contained page, made only from a comparison's document and its answers row by row.

Data enters it as escaped text (`markup`) or as a JSON block that page.js shows with textContent; `frame` makes the
file and its content security policy.
"""

from typing import Any

from riyaz.report import details, extra_findings, pictures, retrieval_pictures
from riyaz.report.arms import about, best_for, megabytes, milliseconds, training
from riyaz.report.markup import Markup, element, join, json_block
from riyaz.report.page import Section, asset, page, tile
from riyaz.report.tables import figure, grid, numbers
from riyaz.report.words import (
    duration,
    fit_seconds,
    headline,
    interval,
    metric_name,
    number,
    signed,
    tenths,
    troubles,
    verdict,
)
from riyaz.results import Answer, ArmResult, Comparison

RIGHT = 0.5  # a row with at least this score counts as right in the example browser
STATUS = {"ok": "", "cut": "cut short", "failed": "failed", "skipped": "skipped"}


def render(comparison: Comparison, answers: dict[str, list[Answer]]) -> str:
    """The page for a comparison and the answers of each arm; needs no network and no other file."""
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
        ("arms", "The arms", "Every way, measured", _arms(comparison, arms)),
        ("cost", "Quality and cost", "Quality against the cost of an answer", _quality(comparison, arms)),
        ("training", "Training", "Learning and forgetting", _training(comparison, arms)),
        ("slices", "Slices", "Scores per slice", _slices(comparison.pick, arms)),
        ("retrieval", "Retrieval", "Retrieval", _retrieval(comparison, arms)),
        ("more-rows", "More rows", extra_findings.CURVE_TITLE, _data_curve(comparison)),
        ("examples", "Examples", "Where the arms disagree", _examples(comparison, answers)),
        ("data", "Data", "The data", details.data(comparison.data)),
        ("pairs", "Pairs", "Arms in pairs, on the same rows", details.pairs(comparison.pairs)),
        ("details", "Details", "The arms in detail", details.arms(arms)),
        ("made", "How it was made", "How it was made", _made(comparison)),
        ("caveats", "Caveats", "What to keep in mind", details.keep_in_mind(comparison)),
    ]


def _made(comparison: Comparison) -> Markup:
    return details.made(
        comparison.command, comparison.seconds, comparison.estimate_seconds, comparison.model, comparison.hardware,
        comparison.versions,
    )  # fmt: skip


def _head(comparison: Comparison) -> Markup:
    """The pick, the sentence of the rule, and the figures of the picked arm."""
    pick, decision = comparison.pick, comparison.decision
    arm = next((arm for arm in comparison.arms if arm.method == pick), None)
    model = comparison.model.name if comparison.model else ""
    tiles = []
    if arm:
        tiles = [
            (metric_name(comparison.metric), number(arm.score, 3), f"95 %: {interval(arm)}"),
            ("an answer takes", milliseconds(arm.ms_per_answer), "one at a time"),
            ("making it took", duration(fit_seconds(arm) or None), "search and training"),
            (
                "it is stored in",
                megabytes(arm.artifact_mb),
                "without the base model" if pick != "full" else "a whole model",
            ),
        ]
    return element(
        "header",
        element("p", element("b", "Riyaz"), " · comparison", f" · {model}" if model else "",
                class_="over"),
        element("h1", "The pick: ", _name(pick) if pick else "none",
                element("span", decision, class_=f"badge {'sure' if decision == 'clear' else 'unsure'}")),
        element("p", verdict(comparison), class_="lead"),
        element("dl", *(tile(*one) for one in tiles), class_="tiles") if tiles else None,
    )  # fmt: skip


def _name(method: str) -> Markup:
    """A method's name with its colour."""
    dot = element("span", class_=f"dot c{about(method).colour}", aria_hidden="true")
    return element("span", dot, method, class_="method")


def _arms(comparison: Comparison, arms: list[ArmResult]) -> Markup:
    """The lecture's table with measured columns; on a narrow screen each arm is a card."""
    if not arms:
        return element("p", "No arm took part.")
    metric, pick = metric_name(comparison.metric), comparison.pick
    titles = ["method", "training needed", "resources", metric, "forgetting", "speed", "artifact", "best for"]
    head = element("tr", *(element("th", title, scope="col", role="columnheader") for title in titles), role="row")
    rows = []
    for arm in arms:
        cells = [
            training(arm) if arm.status in ("ok", "cut") else "–",
            _lines(megabytes(arm.peak_rss_mb), _making(arm)),
            _score(arm),
            _lines(signed(arm.forgetting_nats), "nats per token" if arm.forgetting_nats else None),
            _lines(milliseconds(arm.ms_per_answer), "an answer" if arm.ms_per_answer else None),
            _lines(megabytes(arm.artifact_mb)),
            best_for(arm, arms, pick),
        ]  # fmt: skip
        shown = [element("th", _title(arm, pick), scope="row", role="rowheader")]
        shown += [
            element("td", cell, role="cell", data_label=title) for title, cell in zip(titles[1:], cells, strict=True)
        ]
        rows.append(element("tr", *shown, role="row", class_="picked" if arm.method == pick else None))
    table = element(
        "table",
        element("caption", "Best score first. Intervals are 95 %; forgetting is the change on general text."),
        element("thead", head, role="rowgroup"), element("tbody", *rows, role="rowgroup"), role="table", class_="arms",
    )  # fmt: skip
    wrapped = element("div", table, class_="wide-table", role="region", aria_label="The arms", tabindex="0")
    return join(wrapped, _troubles(comparison.arms))


def _title(arm: ArmResult, pick: str | None) -> Markup:
    """Name, what became of it and what it is."""
    status = STATUS[arm.status]
    picked = element("span", "the pick", class_="badge sure") if arm.method == pick else None
    flagged = element("span", status, class_="badge unsure") if status else None
    return join(_name(arm.method), picked, flagged, element("span", about(arm.method).what, class_="what"))


def _making(arm: ArmResult) -> str:
    took = fit_seconds(arm)
    if arm.peak_rss_mb is None:
        return ""
    return "at the peak" + (f", {duration(took)} to make" if took else "")


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
    found = [
        element("li", element("b", method), f" {STATUS[status]}: {reason}") for method, status, reason in troubles(arms)
    ]
    return element("ul", *found, class_="troubles") if found else None


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
        "Up is better, left is cheaper. A filled mark: nothing else is both as good and as fast (the dashed line joins "
        "them). A hollow mark: something else is.",
        numbers(["method", metric, "95 % interval", "ms per answer"], rows),
    )  # fmt: skip


def _training(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric, pick = metric_name(comparison.metric), comparison.pick
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    curves = [pictures.learning(arms, pick, width, f"l{n}") for width, n in widths]
    lost = [pictures.forgetting(arms, pick, metric, width, f"f{n}") for width, n in widths]
    shown = []
    if curves[0]:
        points = [
            [arm.method, number(point.step), number(point.loss, 4), number(point.valid_loss, 4)]
            for arm in arms
            for point in arm.curve
            if point.valid_loss is not None
        ]
        table = numbers(["method", "step", "training loss", "validation loss"], points)
        shown.append(figure(curves, "Validation loss decides which step is kept; training loss is faint.", table))
    if lost[0]:
        rows = [[arm.method, number(arm.score, 3), signed(arm.forgetting_nats), number(arm.kl_task, 3)] for arm in arms]
        table = numbers(["method", metric, "nats per token", "KL to the base on the task"], rows)
        shown.append(figure(lost, "Up is better, left forgets less. Zero: the model's weights are the base's.", table))
    return element("div", *shown, class_="pair") if shown else None


def _slices(pick: str | None, arms: list[ArmResult]) -> Markup | None:
    widths = ((pictures.FULL, "sw"), (pictures.NARROW, "sn"))
    drawn = [pictures.slices(arms, pick, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    having = [arm for arm in arms if arm.slices]
    titles = list(dict.fromkeys(title for arm in having for title in arm.slices))
    rows = []
    for title in titles:
        found = [arm.slices.get(title) for arm in having]
        count = next((entry.n for entry in found if entry and entry.n is not None), None)
        rows.append([title, number(count), *(number(entry.score if entry else None, 3) for entry in found)])
    note = "One panel for a slice with its number of test rows, one line for an arm."
    if len(titles) > pictures.SLICES_SHOWN:
        note += f" The largest {pictures.SLICES_SHOWN} of {len(titles)} slices; all are in the table."
    return figure(drawn, note, numbers(["slice", "rows", *(arm.method for arm in having)], rows))


def _retrieval(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric = metric_name(comparison.metric)
    found = extra_findings.retrieving(arms)
    if not found:
        return None
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    drawn = [
        ([retrieval_pictures.recall(found, width, f"r{n}") for width, n in widths], "Is the right document found?"),
        ([retrieval_pictures.contexts(found, metric, width, f"o{n}") for width, n in widths],
         f"The {metric} with nothing, with what was found, and with the right document in the prompt."),
    ]  # fmt: skip
    shown = [figure(pair, caption, None) for pair, caption in drawn if pair[0]]
    table = grid(*extra_findings.retrieval_table(arms), "Retrieval in figures")
    return join(element("div", *shown, class_="pair"), table, element("p", extra_findings.RETRIEVAL_NOTE))


def _data_curve(comparison: Comparison) -> Markup | None:
    metric = metric_name(comparison.metric)
    widths = ((pictures.HALF, "dw"), (pictures.NARROW, "dn"))
    drawn = [retrieval_pictures.data_curve(comparison, metric, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    shown = figure(drawn, extra_findings.CURVE_NOTE, numbers(*extra_findings.curve_table(comparison)))
    return element("div", shown, class_="pair")


def _examples(comparison: Comparison, answers: dict[str, list[Answer]]) -> Markup | None:
    """The frame of the example browser, hidden until page.js fills it."""
    if not any(answers.values()):
        return None
    methods = _answering(comparison, answers)
    names = [("all", "all rows"), ("disagree", "arms disagree"), ("wrong", "the pick is wrong")]
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
        element("noscript", element("p", "Leafing through the examples needs JavaScript; everything else on this page "
                                    "does not, and predictions.jsonl holds every row.", class_="note")),
        element("div", element("p", f"An answer with a score of at least {RIGHT} counts as right here."), form,
                element("p", id="count", role="status"), element("ol", id="rows"),
                element("button", "Show more", type="button", id="more"), id="browser", hidden=True),
    )  # fmt: skip


def _choice(key: str, title: str, options: list[tuple[str, str]]) -> Markup:
    return element(
        "label", title, element("select", *(element("option", name, value=value) for value, name in options), id=key)
    )


def _answering(comparison: Comparison, answers: dict[str, list[Answer]]) -> list[str]:
    """Methods with answers, in the order of the table."""
    return [arm.method for arm in comparison.ranked if answers.get(arm.method)]


def _browser_data(comparison: Comparison, answers: dict[str, list[Answer]]) -> dict[str, Any]:
    """Rows by where they came from, each with what every arm answered: what page.js reads."""
    methods = _answering(comparison, answers)
    rows: dict[str, dict[str, Any]] = {}
    for place, method in enumerate(methods):
        for row in answers[method]:
            made = rows.setdefault(row.where, {
                "where": row.where, "prompt": row.prompt, "answers": row.answers, "slice": row.slice,
                "said": [None] * len(methods),
            })  # fmt: skip
            if made["said"][place] is None:  # the first part of an arm is the one whose artifact is kept
                score = None if row.score is None else float(row.score)
                made["said"][place] = [row.prediction, score, row.citations or []]
    pick = comparison.pick
    return {
        "methods": [{"name": method, "colour": about(method).colour} for method in methods],
        "pick": methods.index(pick) if pick in methods else None,
        "right": RIGHT,
        "rows": list(rows.values()),
    }
