"""The figures of limits.json as text, for the terminal, the page and the cards."""

from collections.abc import Mapping, Sequence

from riyaz.report.words import MISSING, duration, number
from riyaz.results import Figure, Limits, Part, Suite, in_words

BEYOND = "Beyond chance, by their 95 % intervals; of twenty figures without a finding one is expected to be listed too:"
TITLES = {
    "bias": "Bias", "truth": "Hallucination", "context": "Context", "cost": "Cost", "fragile": "How fragile",
}  # fmt: skip
HEADS = {  # groups whose figures stand side by side
    *("all", "occupation", "gender", "name and origin", "age", "religion", "disability", "one at a time", "with typos"),
    *("with not", "as written"),
}
COLUMNS = ("group", "figure", "value", "95 % interval", "n", "even", "p")
LEAD = (
    "Measured on this model, with what each part says it was measured on. No figure here says that a model is fair, "
    "truthful or understands: every part ends with what it cannot see."
)


def shown(value: float | None, unit: str) -> str:
    """A value with its unit: `54.2 %`, `1.18 nats`, `12 s`."""
    if value is None:
        return MISSING
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "seconds":
        return duration(value) or MISSING
    if unit in ("score", "nats", ""):
        return f"{value:.3f} {unit if unit == 'nats' else ''}".strip()
    if unit == "FLOP":
        return f"{value:.2e} FLOP"
    if unit in ("count", "rows"):
        return number(value)
    small = f"{value:,.2f}" if abs(value) < 100 else number(value)
    return f"{small} {unit}".strip() if unit != "money" else f"{value:,.4f}" if abs(value) < 1 else small


def interval(figure: Figure) -> str:
    """Both ends of the interval."""
    if figure.low is None or figure.high is None:
        return MISSING
    low, high = shown(figure.low, figure.unit), shown(figure.high, figure.unit)
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(unit).rstrip() if unit.isalpha() or unit == '%' else low} to {high}"


def cells(figure: Figure) -> list[str]:
    """A figure as a row of COLUMNS."""
    p = MISSING if figure.p_value is None else "<0.001" if figure.p_value < 0.001 else f"{figure.p_value:.3f}"
    even = MISSING if figure.even is None else shown(figure.even, figure.unit)
    return [figure.group, figure.name, shown(figure.value, figure.unit), interval(figure), number(figure.n), even, p]


def table(part: Part) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a part, without the columns that are empty in all of them."""
    rows = [cells(figure) for figure in part.figures]
    even, titles = {row[COLUMNS.index("even")] for row in rows}, list(COLUMNS)
    if len(even) == 1 and even != {MISSING}:  # the same in every row: said once
        titles[2] = f"value (even: {even.pop()})"
        rows = [[MISSING if place == COLUMNS.index("even") else cell for place, cell in enumerate(row)] for row in rows]
    columns = [place for place in range(len(COLUMNS)) if place < 3 or any(row[place] != MISSING for row in rows)]
    if all(row[0] == "all" for row in rows):
        columns = [place for place in columns if place]
    return [titles[place] for place in columns], [[row[place] for place in columns] for row in rows]


def joined(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table with the group behind the figure's name, in one column."""
    if titles[0] != "group":
        return list(titles), [list(row) for row in rows]
    return list(titles[1:]), [
        [figure if group == "all" else f"{figure}, {group}", *rest] for group, figure, *rest in rows
    ]


def title(suite: Suite) -> str:
    """The heading of a suite."""
    return TITLES.get(suite.name, suite.name)


def called(document: Limits) -> str:
    """The name of what was measured: the last part of a path; of a comparison's artifact its method."""
    *_, method, part, last = ("", "", *document.target.rstrip("/").split("/"))
    return method if (part, last) == ("kept", "artifact") else last or document.target


def side_by_side(measured: Mapping[str, Limits]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the figures that at least two targets have, a column for each target."""
    of_each = {
        name: {
            (part.name, figure.group, figure.name): figure
            for suite in document.suites for part in suite.parts for figure in part.figures
        }
        for name, document in measured.items()
    }  # fmt: skip
    keys = [key for key in dict.fromkeys(key for figures in of_each.values() for key in figures) if key[1] in HEADS]
    rows = []
    for key in keys:
        row = [figures.get(key) for figures in of_each.values()]
        if sum(figure is not None for figure in row) > 1:
            cells = [MISSING if figure is None else _with_interval(figure) for figure in row]
            rows.append([f"{key[0]}: {key[2]}" if key[1] == "all" else f"{key[0]}: {key[2]}, {key[1]}", *cells])
    return ["figure", *measured], rows


def _with_interval(figure: Figure) -> str:
    value = shown(figure.value, figure.unit)
    return value if figure.low is None else f"{value} ({interval(figure)})"


def facts(document: Limits) -> str:
    """In which precision, when and how long it was measured, in one line."""
    weights = f"weights in {in_words(document.served)}" if document.served else ""
    took = f"in {duration(document.seconds)}" if document.seconds else ""
    return " · ".join(filter(None, (weights, document.date or "", took)))


def findings(parts: Sequence[Part]) -> list[str]:
    """The figures whose interval does not hold the even value, as sentences: what was found beyond chance."""
    lines = []
    for part in parts:
        for figure in part.figures:
            if figure.even is None or figure.low is None or figure.high is None or figure.value is None:
                continue
            if not figure.low <= figure.even <= figure.high:
                group = "" if figure.group == "all" else f", {figure.group}"
                lines.append(
                    f"{part.name}{group}: {figure.name} {shown(figure.value, figure.unit)} ({interval(figure)})"
                )
    return lines
