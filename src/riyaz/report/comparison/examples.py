"""Where the methods disagree: five rows in the page, and the browser of all rows, which page.js fills."""

from typing import Any

from riyaz.report.comparison.arms import about
from riyaz.report.media.markup import Markup, clean, element, join
from riyaz.report.words import number, role
from riyaz.results import Answer, Comparison, metric_name

RIGHT = 0.5  # a row with at least this score counts as right
SHOWN = 5  # rows that stand in the page
LONG = 700  # characters of a text that are shown
Row = dict[str, Any]  # one test row with the answer of every method: see `rows`


def section(comparison: Comparison, data: dict[str, Any]) -> Markup | None:
    """Five rows of the `browser_data` on which the pick and the runner-up disagree, then the folded browser of all."""
    if not data["rows"]:
        return None
    chosen = _telling(data)
    intro = f"An answer with a score of at least {data['right']} counts as right."
    if comparison.metric == "nats":
        intro = f"The mean of all arms is {data['right']} {metric_name('nats')}."
    return join(
        element("p", _about(comparison, data, chosen), f" {intro}"),
        element("ol", *(_row(row, data) for row in chosen), class_="rows") if chosen else None,
        element("noscript", element("p", "Browsing all rows needs JavaScript; the rest of this page does not. "
                                    "Every row is in predictions.jsonl.", class_="note")),
        element("details", element("summary", f"All {number(len(data['rows']))} rows, with filters and search"),
                _form(comparison, data), element("p", id="count", role="status"),
                element("ol", id="rows", class_="rows"), element("button", "Show more", type="button", id="more"),
                id="browser", hidden=True),
    )  # fmt: skip


def browser_data(comparison: Comparison, answers: dict[str, list[Answer]]) -> dict[str, Any]:
    """The JSON that page.js reads: one entry per test row, joined by `where`, with the answer of every method in the
    order of the table. Control characters and direction overrides are written by their names."""
    arms = [arm for arm in comparison.ranked if answers.get(arm.name)]
    methods = [arm.name for arm in arms]
    rows: dict[str, Row] = {}
    for place, method in enumerate(methods):
        for row in answers[method]:
            entry = rows.setdefault(row.where, {
                "where": clean(row.where), "prompt": clean(row.prompt), "answers": [clean(one) for one in row.answers],
                "slice": None if row.slice is None else clean(row.slice), "said": [None] * len(methods),
            })  # fmt: skip
            if entry["said"][place] is None:  # an arm's first part is the one whose artifact is kept
                score = None if row.score is None else float(row.score)
                sources = [{key: _cleaned(item) for key, item in cited.items()} for cited in row.citations or []]
                entry["said"][place] = [clean(row.prediction), score, sources]

    def place_of(method: str | None) -> int | None:
        return methods.index(method) if method in methods else None

    return {
        "methods": [{"name": arm.name, "colour": about(arm).colour} for arm in arms],
        "pick": place_of(comparison.pick),
        "next": place_of(comparison.runner_up),
        "role": role(comparison),
        "right": _least(comparison),  # or likelier than the mean
        "rows": list(rows.values()),
    }


def _least(comparison: Comparison) -> float:
    """The score from which on a row counts as right; of log-probabilities, which know no right one, the arms' mean."""
    scores = [arm.score for arm in comparison.arms if arm.score is not None]
    return round(sum(scores) / len(scores), 3) if any(score < 0 for score in scores) else RIGHT


def _right(row: Row, place: int, least: float) -> bool | None:
    """Whether a method was right; None where it has no answer."""
    said = row["said"][place]
    return None if said is None else said[1] is not None and said[1] >= least


def _ahead(data: dict[str, Any], one: str, other: str) -> list[Row]:
    """The rows on which `one` of pick and next is right and the `other` wrong; none without both."""
    place, against = data[one], data[other]
    if place is None or against is None:
        return []
    least = data["right"]
    return [row for row in data["rows"] if _right(row, place, least) is True and _right(row, against, least) is False]


def _telling(data: dict[str, Any]) -> list[Row]:
    """SHOWN rows on which pick and runner-up disagree, by turns in favour of one and of the other; if these are too
    few, then rows on which any methods disagree."""
    places = range(len(data["methods"]))
    ahead, behind = _ahead(data, "pick", "next"), _ahead(data, "next", "pick")
    chosen: list[Row] = []
    for turn in range(max(len(ahead), len(behind))):
        chosen += ahead[turn : turn + 1] + behind[turn : turn + 1]
    if len(chosen) < SHOWN:
        least = data["right"]
        some = [row for row in data["rows"] if len({_right(row, place, least) for place in places} - {None}) > 1]
        chosen += [row for row in some if not any(row is one for one in chosen)]
    return chosen[:SHOWN]


def _about(comparison: Comparison, data: dict[str, Any], chosen: list[Row]) -> str:
    if not chosen:
        alike = "likelier than the mean or none is" if comparison.metric == "nats" else "right or all are wrong"
        return f"No methods disagree: on every row all are {alike}."
    if data["pick"] is None or data["next"] is None:
        return f"{len(chosen)} rows on which methods disagree."
    ahead, behind = len(_ahead(data, "pick", "next")), len(_ahead(data, "next", "pick"))
    one, two, all_rows = comparison.pick, comparison.runner_up, number(len(data["rows"]))
    if comparison.metric == "nats":
        line = f"{one} is likelier than the mean and {two} is not on {number(ahead)} of {all_rows} rows"
        return f"{line}, {two} is and {one} is not on {number(behind)}."
    ahead_line = f"{one} is right and {two} wrong on {number(ahead)} of {all_rows} rows"
    return f"{ahead_line}, {two} right and {one} wrong on {number(behind)}."


def _row(row: Row, data: dict[str, Any]) -> Markup:
    """A row and its answers, as page.js shows them; the pick and the runner-up first, equal answers in one line."""
    groups: dict[str, tuple[Any, list[int]]] = {}
    first = [place for place in (data["pick"], data["next"]) if place is not None]
    for place in dict.fromkeys([*first, *range(len(data["methods"]))]):
        if row["said"][place] is not None:
            groups.setdefault(repr(row["said"][place][:2]), (row["said"][place], []))[1].append(place)
    meta = row["where"] if row["slice"] is None else f"{row['where']} · {row['slice']}"
    wanted = element("p", "Accepted: ", element("b", "  or  ".join(row["answers"])), class_="wanted")
    question = element(
        "div", element("p", meta, class_="meta"), element("p", _clip(row["prompt"]), class_="prompt"), wanted
    )
    return element("li", question, element("ul", *(_said(*group, data) for group in groups.values()), class_="said"))


def _said(said: list[Any], places: list[int], data: dict[str, Any]) -> Markup:
    names = []
    for place in places:
        method = data["methods"][place]
        dot = element("span", class_=f"dot c{method['colour']}", aria_hidden="true")
        called = f" ({data['role']})" if place == data["pick"] else ""
        names.append(element("span", dot, f"{method['name']}{called}", class_="method"))
    right = said[1] is not None and said[1] >= data["right"]
    points = element("span", number(said[1], 2), class_="points")
    answer = element("span", _clip(said[0]) or "(nothing)", class_="answer")
    return element("li", points, answer, element("span", *names, class_="who"), class_="right" if right else "wrong")


def _clip(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def _form(comparison: Comparison, data: dict[str, Any]) -> Markup:
    right, wrong = "is right", "is wrong"
    if comparison.metric == "nats":
        right, wrong = "is likelier than the mean", "is not likelier than the mean"
    names = [("all", "all rows"), ("disagree", "methods disagree"), ("wrong", f"{role(comparison)} {wrong}")]
    if data["pick"] is not None and data["next"] is not None:
        names.insert(1, ("two", f"{comparison.pick} and {comparison.runner_up} disagree"))
    names += [(f"only:{place}", f"only {one['name']} {right}") for place, one in enumerate(data["methods"])]
    slices = sorted({row["slice"] for row in data["rows"] if row["slice"] is not None})
    return element(
        "form",
        _choice("show", "Show", names),
        _choice("slice", "Slice", [("", "every slice"), *((f"={name}", name) for name in slices)]) if slices else None,
        element("label", "Search", element("input", type="search", id="search", autocomplete="off")),
        id="filter", role="search", aria_label="Examples",
    )  # fmt: skip


def _choice(key: str, title: str, options: list[tuple[str, str]]) -> Markup:
    return element(
        "label", title, element("select", *(element("option", name, value=value) for value, name in options), id=key)
    )


def _cleaned(item: Any) -> Any:
    """A value of a citation with clean texts."""
    if isinstance(item, list):
        return [_cleaned(each) for each in item]
    return clean(item) if isinstance(item, str) else item
