"""report.md of a comparison: scores, tests, costs, data, settings and checks, made from compare.json alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riyaz.json_files import to_document
from riyaz.report import row_problems
from riyaz.report.comparison import confidence, extra_findings, questions, schedule
from riyaz.report.comparison.details import ROW_KINDS, labels_in_prompts, leakage
from riyaz.report.comparison.next_commands import after_comparison
from riyaz.report.comparison.precisions import merged_line, served_line
from riyaz.report.comparison.worth import TITLE as WORTH_TITLE
from riyaz.report.comparison.worth import worth_lines
from riyaz.report.limits import markdown as limits_markdown
from riyaz.report.media.markdown_text import escape, grid
from riyaz.report.media.markup import clean
from riyaz.report.names import NAMES, check_name, key_name
from riyaz.report.words import (
    MISSING,
    PAIRS,
    caveats,
    columns,
    duration,
    extras,
    floor_line,
    headline,
    measured_again,
    metric_name,
    number,
    pair_rows,
    role,
    slices,
    totals,
    troubles,
    value,
    verdict,
)
from riyaz.results import ArmResult, Comparison, Data, Limits
from riyaz.results.problems import PROBLEMS_TABLE, RowProblems


def render(
    comparison: Comparison, folder: Path | None = None, limits: Mapping[str, Limits] | None = None,
    problems: RowProblems | None = None,
) -> str:  # fmt: skip
    """The whole report as Markdown text; with the folder of the comparison, also the commands to go on with."""
    arms = comparison.ranked
    metric = metric_name(comparison.metric)
    parts = [
        f"# {escape(headline(comparison))}",
        escape(verdict(comparison)),
        _table(comparison, arms),
        _troubles(comparison.arms),
        _seeds(arms),
        _teachers(arms),
        _questions(arms),
        _sure(arms),
        _slices(arms, metric),
        escape(extra_findings.worst_slice_line(comparison)),
        _worth(comparison),
        _pairs(comparison),
        _retrieval(arms),
        _data_curve(comparison),
        _overfitting(arms),
        limits_markdown.section(limits or {}),
        _rows_to_check(problems or RowProblems()),
        _next(comparison, folder),
        _schedule(comparison),
        "## How it was measured",
        _measured(comparison),
        "## The methods in detail",
        _details(arms),
        *(_arm(arm) for arm in arms),
        "## What to keep in mind",
        "\n".join(f"* {escape(caveat)}" for caveat in caveats(comparison)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(comparison: Comparison, arms: list[ArmResult]) -> str:
    chosen = columns(arms, comparison.pick)
    table = grid([c.title for c in chosen], [[c.fill(arm) for c in chosen] for arm in arms], [c.text for c in chosen])
    notes = "Intervals: 95 %. Forgetting: rise of the loss on general text, in nats per token."
    picked = f"\\* {role(comparison)}. " if comparison.pick else ""
    return "\n\n".join(part for part in (table, escape(floor_line(comparison)), picked + notes) if part)


def _troubles(arms: list[ArmResult]) -> str:
    lines = [f"* **{escape(m)}** {status}: {escape(reason)}" for m, status, reason in troubles(arms)]
    return "\n".join(lines)


def _seeds(arms: list[ArmResult]) -> str:
    scores = [(arm.name, extra_findings.seeds(arm)) for arm in arms]
    return "\n".join(f"* **{escape(method)}** scored {escape(by_seed)}" for method, by_seed in scores if by_seed)


def _schedule(comparison: Comparison) -> str:
    lines = schedule.lines(comparison)
    return "\n\n".join([f"## {schedule.TITLE}", "\n".join(f"* {escape(line)}" for line in lines)]) if lines else ""


def _teachers(arms: list[ArmResult]) -> str:
    lines = [(arm.name, extra_findings.teacher_line(arm)) for arm in arms]
    return "\n".join(f"* **{escape(name)}** has learned from a teacher: {escape(line)}" for name, line in lines if line)


def _worth(comparison: Comparison) -> str:
    lines = worth_lines(comparison)
    return "\n\n".join([f"## {WORTH_TITLE}", *map(escape, lines)]) if lines else ""


def _sure(arms: list[ArmResult]) -> str:
    titles, rows = confidence.table(arms)
    return f"## {confidence.TITLE}\n\n{grid(titles, rows)}\n\n{escape(confidence.NOTE)}" if rows else ""


def _questions(arms: list[ArmResult]) -> str:
    if not questions.named_questions(arms):
        return ""
    tables = "\n\n".join(grid(*table) for table in (questions.table(arms), questions.figures(arms)))
    return f"## {questions.TITLE}\n\n{tables}\n\n{escape(questions.NOTE)}"


def _slices(arms: list[ArmResult], metric: str) -> str:
    arms = [arm for arm in arms if arm.slices]
    scores = [dict(slices(arm)) for arm in arms]
    names = list(dict.fromkeys(name for by_slice in scores for name in by_slice))
    if not names:
        return ""
    rows = [[name, *(by_slice.get(name, MISSING) for by_slice in scores)] for name in names]
    return f"## Scores per slice ({metric})\n\n" + grid(["slice", *(arm.name for arm in arms)], rows)


def _pairs(comparison: Comparison) -> str:
    rows = pair_rows(comparison.pairs)
    return "## Methods in pairs, on the same rows\n\n" + grid(PAIRS, rows) if rows else ""


def _retrieval(arms: list[ArmResult]) -> str:
    titles, rows = extra_findings.retrieval_table(arms)
    return f"## Retrieval\n\n{grid(titles, rows)}\n\n{escape(extra_findings.RETRIEVAL_NOTE)}" if rows else ""


def _data_curve(comparison: Comparison) -> str:
    titles, rows = extra_findings.curve_table(comparison)
    if not rows:
        return ""
    table = grid(titles, rows, [False] * len(titles))
    return f"## {escape(extra_findings.CURVE_TITLE)}\n\n{table}\n\n{escape(extra_findings.curve_note(comparison))}"


def _overfitting(arms: list[ArmResult]) -> str:
    lines = extra_findings.overfitting_lines(arms)
    return "\n".join(["## Overfitting\n", *(f"* {escape(line)}" for line in lines)]) if lines else ""


def _rows_to_check(problems: RowProblems) -> str:
    parts = ["## Rows that may be wrong"]
    for heading, lines in row_problems.short_lists(problems):
        parts.append(f"{escape(heading)}:\n\n" + "\n".join(f"* {escape(line)}" for line in lines))
    if problems.rows:
        parts.append(f"All {len(problems.rows):,} of them are in [{PROBLEMS_TABLE}]({PROBLEMS_TABLE}).")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _next(comparison: Comparison, folder: Path | None) -> str:
    commands = after_comparison(comparison, folder) if folder is not None else []
    lines = [f"{command}  # {title}" for title, command in commands]
    return "## What to do next\n\n" + _fenced("\n".join(lines), "bash") if lines else ""


def _fenced(text: str, kind: str) -> str:
    """A block of code, whatever backticks are in it."""
    text = clean(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text}\n{fence}"


def _measured(comparison: Comparison) -> str:
    command = comparison.command
    blocks = [_fenced(f"$ {command}", "console")] if command else []
    took, planned = comparison.seconds, comparison.estimate_seconds
    if took is not None:
        estimated = f", estimated {duration(planned)}" if planned is not None else ""
        blocks.append(f"The whole command took {duration(took)}{estimated}.")
    models = [(f"model {model.name}", to_document(model)) for model in comparison.models or []]
    models = models or [("model", to_document(comparison.model))]
    blocks.append(_facts({**dict(models), "hardware": comparison.hardware, "versions": comparison.versions}))
    data = _facts(_briefly(comparison.data))
    if data:
        blocks.append(f"The data:\n\n{data}")
    return "\n\n".join(filter(None, blocks))


def _briefly(data: Data) -> dict[str, Any]:
    """The data facts, without the rendered rows and with the counts of all labels in one line."""
    counts = [sum(parts.values()) for parts in data.labels.values()]
    labels = {"labels": f"{len(counts)}, with {min(counts)} to {max(counts)} rows each"} if counts else {}
    rows = {
        "rows": ", ".join(
            f"{number(data.rows[part])} {name}" for part, name in ROW_KINDS.items() if data.rows.get(part)
        )
    }
    telling = labels_in_prompts(data.answer_in_prompt)
    own = {"rendered": None, "answer_in_prompt": None}
    return {**to_document(data), **rows, **labels, **leakage(data.leakage), **telling, **own}


def _arm(arm: ArmResult) -> str:
    lines = [f"### {escape(arm.name)}"]
    if arm.status != "ok" and arm.reason:
        lines.append(escape(arm.reason))
    if measured_again(arm):
        lines.append(escape(measured_again(arm)))
    lines += [f"{escape(line[:1].upper() + line[1:])}." for line in (served_line(arm), merged_line(arm)) if line]
    if arm.chosen:
        lines.append(f"Chosen:\n\n{_facts(arm.chosen)}")
    if arm.checks:
        lines.append(f"Checks:\n\n{_facts({check_name(name): _check(check) for name, check in arm.checks.items()})}")
    return "\n\n".join(lines) if len(lines) > 1 else ""


def _check(check: dict[str, Any]) -> str:
    """A check `{"ok": …, further figures}` in one line."""
    figures = ", ".join(f"{NAMES.get(name, name)} {_value(value)}" for name, value in check.items() if name != "ok")
    return ("held" if check["ok"] else "NOT HELD") + (f" ({figures})" if figures else "")


def _details(arms: list[ArmResult]) -> str:
    """A table of the figures that the comparison table leaves out, all scores beside the main metric in one column."""
    second = [dict(extras(arm)) for arm in arms]
    figures = [{n: v for n, v in totals(arm).items() if n not in names} for arm, names in zip(arms, second)]
    rows = [
        [arm.name, ", ".join(" ".join(pair) for pair in names.items()) or MISSING, *others.values()]
        for arm, names, others in zip(arms, second, figures)
    ]
    return grid(["method", "other scores", *(figures[0] if figures else ())], rows)


def _facts(values: dict) -> str:
    """Named values, one per line, lists of records as tables below; empty values are left out."""
    lines, tables = [], []
    for name, fact in values.items():
        if fact in (None, "", [], {}, ()):
            continue
        if isinstance(fact, list) and all(isinstance(item, dict) for item in fact):
            tables.append(f"{escape(key_name(name))}\n\n{_records(fact)}")
        elif isinstance(fact, dict) and any(isinstance(item, dict) for item in fact.values()):
            lines.append(f"* {escape(key_name(name))}:")
            lines += [f"  * {escape(NAMES.get(key, key))}: {_value(item)}" for key, item in fact.items()]
        else:
            lines.append(f"* {escape(key_name(name))}: {_value(fact)}")
    return "\n\n".join(["\n".join(lines), *tables] if lines else tables)


def _records(records: list[dict]) -> str:
    """A table of records; a nested mapping gets one column per key."""
    flat = [
        {key: value for name, item in record.items() for key, value in _columns(name, item).items()}
        for record in records
    ]
    titles = list(dict.fromkeys(key for record in flat for key in record))
    rows = [[_value(record[key]) if key in record else MISSING for key in titles] for record in flat]
    return grid([NAMES.get(title, title) for title in titles], rows, escaped=True)


def _columns(name: str, value: object) -> dict:
    return dict(value) if isinstance(value, dict) else {name: value}


def _value(item: object) -> str:
    return value(item, escape)
