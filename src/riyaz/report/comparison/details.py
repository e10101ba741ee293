"""Sections of report.html about data, pairs of methods, each in detail, machine and versions, and caveats."""

from typing import Any

from riyaz.json_files import to_document
from riyaz.report import row_problems
from riyaz.report.comparison.precisions import merged_line, served_line
from riyaz.report.media.markup import Markup, element, join
from riyaz.report.media.tables import grid
from riyaz.report.names import check_name, key_name
from riyaz.report.words import (
    MISSING,
    PAIRS,
    caveats,
    duration,
    measured_again,
    metric_name,
    number,
    pair_rows,
    totals,
    value,
)  # fmt: skip
from riyaz.results import AnswerInPrompt, ArmResult, Comparison, Data, FileFacts, Leakage, Model, Pair, RunModel
from riyaz.results.problems import PROBLEMS_TABLE, RowProblems

ROW_KINDS = {
    "file": "in the file", "test_file": "in the test file", "train": "to train on", "valid": "to validate on",
    "test": "to test on", "folds": "folds", "skipped": "left out",
    "incomplete": "without prompt or answer",
}  # fmt: skip
TASKS = {
    "closed": "a closed set of labels", "short": "short answers", "free": "free text", "questions": "typed questions",
}  # fmt: skip
SHOWN_LABELS = 100


def data(facts: Data) -> Markup | None:
    """Files, row counts, duplicates, leakage, labels, notes, and some rows as the model sees them."""
    named = {"files", "rows", "labels", "notes", "rendered", "slices", "leakage", "answer_in_prompt"}
    rest = {name: value for name, value in to_document(facts).items() if name not in named}
    rest |= {"task": TASKS.get(facts.task or "", facts.task), "metric": facts.metric and metric_name(facts.metric)}
    counted = [(ROW_KINDS.get(name, name), number(value)) for name, value in facts.rows.items() if value]
    return join(
        element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in counted),
                class_="counts") if counted else None,
        named_values(rest | leakage(facts.leakage) | labels_in_prompts(facts.answer_in_prompt)),
        _files(facts.files),
        element("h3", "Notes on the rows") if facts.notes else None,
        element("ul", *(element("li", note) for note in facts.notes)) if facts.notes else None,
        _labels(facts.labels),
        _rendered(facts.rendered),
    ) or None  # fmt: skip


def rows_to_check(problems: RowProblems) -> Markup | None:
    """Rows that may be wrong, some of each kind, labels that are mixed up, and what was not checked."""
    if not problems.rows and not problems.mixed_labels:
        return None
    items = []
    for heading, rows in row_problems.short_lists(problems):
        items += [element("h3", heading), element("ul", *(element("li", line) for line in rows))]
    table = element("a", PROBLEMS_TABLE, href=PROBLEMS_TABLE)
    linked = element("p", f"All {len(problems.rows):,} of them are in ", table, ".") if problems.rows else None
    return join(linked, *items)


def leakage(leaks: Leakage | None) -> dict[str, str]:
    """Test rows among the training rows, as one named value."""
    if leaks is None:
        return {}
    rows = f"test rows that are also in the training rows: {number(leaks.test_rows)}"
    return {"leakage": f"{rows}; training rows dropped because of this: {number(leaks.dropped)}"}


def labels_in_prompts(telling: AnswerInPrompt | None) -> dict[str, str]:
    """Prompts that hold or tell their label, as one named value."""
    if telling is None:
        return {}
    rows = f"{number(telling.rows)} of {number(telling.looked_at)} different prompts hold it ({telling.share:.1%})"
    sign = (
        f"{number(telling.telling)} tell it ({telling.telling_share:.1%}): {telling.sign}"
        if telling.telling
        else "none tells it"
    )
    return {"answer in the prompt": f"{rows}; {sign}"}


def _files(files: dict[str, FileFacts]) -> Markup | None:
    rows = [[part, file.path, file.format, element("code", file.sha256)] for part, file in files.items()]
    return grid(["part", "file", "columns", "sha256"], rows, "Files", text=4) if rows else None


def _labels(labels: dict[str, dict[str, int]]) -> Markup | None:
    if not labels:
        return None
    parts = list(dict.fromkeys(part for counts in labels.values() for part in counts))
    rows = [
        [label, *(number(counts.get(part)) for part in parts)] for label, counts in list(labels.items())[:SHOWN_LABELS]
    ]
    limit = f", the first {SHOWN_LABELS}" if len(labels) > SHOWN_LABELS else ""
    table = grid(["label", *parts], rows, f"Rows of each label{limit}")
    return element("details", element("summary", f"{len(labels)} labels"), table)


def _rendered(rows: list[list[tuple[str, bool]]]) -> Markup | None:
    """Some rows with the chat template, the text that the loss is on marked."""
    if not rows:
        return None
    items = []
    for row in rows:
        pieces = [element("mark" if learned else "span", text) for text, learned in row]
        items.append(element("li", element("div", *pieces, class_="rendered")))
    key = join(element("mark", "Marked"), " text is what the model is trained to write; it only reads the rest.")
    return join(element("h3", "Rows as the model sees them"), element("p", key), element("ol", *items, class_="plain"))


def pairs(tested: list[Pair]) -> Markup | None:
    """Score differences between arms on the same test rows; closed when there are more than ten."""
    rows = pair_rows(tested)
    if not rows:
        return None
    table = grid(PAIRS, rows, "Differences on the same test rows")
    return element("details", element("summary", f"{len(rows)} pairs"), table) if len(rows) > 10 else table


def arms(results: list[ArmResult]) -> Markup | None:
    """A table of the checks of every method, then each one's settings, checks and figures."""
    if not results:
        return None
    names = list(dict.fromkeys(name for arm in results for name in arm.checks))
    rows = [[check_name(name), *(_held(arm, name) for arm in results)] for name in names]
    checks = grid(
        ["check", *(arm.name for arm in results)], rows, "Checks: a method that fails one counts as failed", text=99
    )
    return join(checks if names else None, *(_arm(arm) for arm in results))


def _held(arm: ArmResult, name: str) -> Markup | str:
    if name not in arm.checks:
        return MISSING
    ok = arm.checks[name]["ok"]
    return element("span", "held" if ok else "NOT HELD", class_="held" if ok else "broken")


def _arm(arm: ArmResult) -> Markup:
    lines = {"latency": measured_again(arm), "precision": served_line(arm), "merged": merged_line(arm)}
    figures = {"status": arm.status, "reason": arm.reason} | lines | totals(arm)
    checks = {check_name(name): check for name, check in arm.checks.items()}
    return element(
        "details",
        element("summary", arm.name),
        named_values({name: figure for name, figure in figures.items() if figure != MISSING}),
        element("h3", "Chosen") if arm.chosen else None,
        named_values(arm.chosen),
        element("h3", "Checks") if checks else None,
        named_values(checks),
    )


def made(
    command: str, took: float | None, planned: float | None, model: Model | list[Model] | RunModel | None,
    hardware: dict[str, Any] | None, versions: dict[str, str] | None,
) -> Markup:  # fmt: skip
    """The command, its measured and estimated time in seconds, model, machine and versions."""
    times = f"The whole command took {duration(took)}" + (f", estimated {duration(planned)}." if planned else ".")
    models = (
        [(f"Model {each.name}", to_document(each)) for each in model]
        if isinstance(model, list)
        else [("Model", to_document(model))]
    )
    facts = {**dict(models), "Machine": hardware, "Versions": versions}
    parts = [(title, named_values(values)) for title, values in facts.items() if values]
    return join(
        element("pre", element("code", f"$ {command}")) if command else None,
        element("p", times) if took is not None else None,
        element("div", *(element("div", element("h3", title), content) for title, content in parts), class_="thirds"),
    )  # fmt: skip


def keep_in_mind(comparison: Comparison) -> Markup:
    """The caveats of a comparison as a list."""
    return element("ul", *(element("li", note) for note in caveats(comparison)))


def named_values(values: dict) -> Markup | None:
    """Named values as a definition list, lists of records as tables below it; empty values are left out."""
    plain, tables = [], []
    for name, item in values.items():
        if item in (None, "", [], {}, ()):
            continue
        if isinstance(item, list) and all(isinstance(entry, dict) for entry in item):
            titles = list(dict.fromkeys(key for entry in item for key in entry))
            rows = [[value(entry.get(key)) for key in titles] for entry in item]
            tables.append(grid([key_name(key) for key in titles], rows, key_name(name)))
        else:
            plain.append(element("div", element("dt", key_name(name)), element("dd", value(item))))
    return join(element("dl", *plain, class_="facts") if plain else None, *tables) or None
