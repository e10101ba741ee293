"""`riyaz data`: shows how a data file is read, without training."""

import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.text import Text

from riyaz.cli.every_problem import every_problem
from riyaz.cli.options import READING_DEFAULTS, Data, Json, Reading, configured, resolve_options
from riyaz.cli.output import Screen
from riyaz.cli.row_problems import command_with, load_unlabelled, refuse_labelled, show_label_next, show_problems
from riyaz.cli.stream import AtLeastOne
from riyaz.errors import RiyazError, few, listed
from riyaz.extras import require
from riyaz.results import metric_name

SHOWN = 3  # rows that are shown as the model sees them
BINS = 20  # of the histogram of lengths
LABELS = 12  # labels that are listed with their row counts
LEARNED = "bold green"  # the text that the loss is on
LABEL_NEXT = 20  # unlabelled rows that are named
FromNone = validators.Number(gte=0)
OPEN, CLOSE = "⟦", "⟧"  # around this text when there are no colours


def data(
    data: Data,
    /,
    *,
    model: Annotated[str | None, configured("model", "; of several, separated by commas, the first")] = None,
    test: Annotated[Path | None, configured("test")] = None,
    rows: Annotated[int, Parameter(help="rows to show as the model sees them", validator=AtLeastOne)] = SHOWN,
    offset: Annotated[int, Parameter(help="rows to leave out before them", validator=FromNone)] = 0,
    skip_problems: Annotated[bool, Parameter(help="do not look for rows that may be wrong")] = False,
    unlabelled: Annotated[Path | None, Parameter(help="rows without labels; name those worth labelling next")] = None,
    label_next: Annotated[int, Parameter(help="how many of them to name", validator=AtLeastOne)] = LABEL_NEXT,
    out: Annotated[
        Path | None, Parameter(help="folder for problems.csv, every row that may be wrong, and label_next.csv")
    ] = None,
    questions_out: Annotated[
        Path | None,
        Parameter(help="file to write: typed questions that columns with few values suggest, to be reworded"),
    ] = None,
    reading: Reading = READING_DEFAULTS,
    json: Json = False,
) -> None:
    """Show how a data file is read, and what may be wrong with its rows: labels, duplicates, leakage."""
    require("compare")
    data_config, config = resolve_options(data, reading, others={"model": model, "test": test})

    from riyaz.data import formats, split, task
    from riyaz.data.answer_in_prompt import OPTION, answer_in_prompt
    from riyaz.data.turns import facts_of

    screen = Screen(json)
    if questions_out is not None:
        return _offer(screen, data, questions_out, data_config.encoding, reading.explicit)
    if unlabelled is not None and out is not None:
        refuse_labelled(out)
    flags = {**reading.explicit, "model": model, "test": test}
    try:
        folder = formats.open_data(data, test=config.test, **data_config.reading())
    except RiyazError as error:
        if not error.options:
            raise
        raise every_problem(error, "data", data, config.test, data_config, flags) from None
    detected = task.detect(
        folder.train, data_config.instruction, data_config.metric, data_config.task, data_config.schema,
        data_config.max_words, data_config.max_new_tokens,
    )  # fmt: skip
    more = None if unlabelled is None else load_unlabelled(unlabelled, folder, detected)
    document: dict[str, Any] = {
        "path": str(folder.train.path),
        "format": folder.train.format,
        "columns": folder.train.columns,
        "unused_columns": folder.train.unused_columns,
        "rows": len(folder.train.examples),
        "checks": _checks(folder.train.examples),
        "conversations": facts_of(folder.train.examples),
        "task": {name: getattr(detected, name) for name in ("kind", "metric", "labels", "instruction", "why")},
    }
    _show_reading(screen, document, folder)
    if data_config.schema is not None:
        document["schema"] = _show_schema(screen, data_config.schema, detected.schema, folder.train.examples)
    window = slice(offset, offset + rows)
    document["examples"] = [
        {"where": row.where, "prompt": row.prompt, "answers": list(row.answers), "slice": row.slice}
        for row in folder.train.examples[window]
    ]
    document |= _tokens(screen, folder.train.examples, detected, config.model[0], window, wanted=model is not None)
    telling = answer_in_prompt(folder.train, folder.test, detected)
    _, report = split.split(
        folder.train,
        folder.test,
        detected,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        seed=config.seed,
        allow_leakage=True,  # this command shows leakage, `compare` refuses it
    )
    if telling is not None:
        report.answer_in_prompt = telling.to_dict()
        report.notes += [telling.note] if telling.telling else []
    document["report"] = report.to_dict()
    _show_split(screen, document["report"])
    if not skip_problems:
        document["problems"] = show_problems(screen, folder, detected, out)
    if more is not None:
        document["label_next"] = show_label_next(screen, folder, detected, more, label_next, out)
    if columns := _also_answers(folder.train):
        screen.fact("questions", f"{listed(columns)} may be answers too: --questions-out q.json writes the questions")
    flags |= _mending(folder, detected) | ({OPTION: True} if telling is not None and telling.telling else {})
    screen.fact("next", command_with("compare", data, flags))
    screen.finish(document)


def _also_answers(train: Any) -> list[str]:
    """The columns of the training rows that are not read and suggest a question, where none is asked of these rows."""
    from riyaz.data.many_files import read_tables
    from riyaz.data.question_offer import offered

    if not train.unused_columns or train.reading.questions:
        return []
    questions = offered(read_tables(train.path, train.reading.encoding)[0])
    return [question.column for question in questions if question.column in train.unused_columns]


def _offer(screen: Screen, data: Path, out: Path, encoding: str | None, flags: dict[str, Any]) -> None:
    """Write the questions that the columns of a file suggest. Raises RiyazError where none does, or the file exists."""
    from riyaz.data.many_files import read_tables
    from riyaz.data.question_offer import offered
    from riyaz.json_files import write_json

    if out.exists():
        raise RiyazError("exists already", str(out), "name another file")
    if data.is_dir():
        raise RiyazError("is a folder", str(data), "name its file of training rows")
    questions = offered(read_tables(data, encoding)[0])
    if not questions:
        raise RiyazError("no column has a few values that repeat", str(data), "write the questions by hand")
    document = {"questions": [question.document() for question in questions]}
    write_json(out, document)
    for question in questions:
        screen.fact(question.name, f"{question.type}: {listed(question.labels)}")
    screen.fact("written", f"{out}: say in `instructions` what is asked, and remove what is no question")
    screen.fact("next", command_with("compare", data, {**flags, "questions": out}))
    screen.finish({"out": str(out), **document})


def _mending(folder: Any, task: Any) -> dict[str, bool]:
    """The flags by which a comparison takes these rows in spite of what is wrong with them."""
    from riyaz.data.spellings import label_twins
    from riyaz.data.split import leaks

    both = (*folder.train.examples, *(folder.test.examples if folder.test else ()))
    twins = task.kind == "closed" and label_twins({answer for row in both for answer in row.answers})
    mending = {"merge_labels": bool(twins), "allow_leakage": leaks(folder.train, folder.test)}
    return {name: True for name, needed in mending.items() if needed}


def _checks(examples: Any) -> dict[str, int]:
    """How many rows have each kind of check of their answer."""
    counts = Counter(name for row in examples if row.check for name in row.check.to_record())
    return {name: counts[name] for name in ("tests", "database", "schema", "slots") if counts[name]}


def _show_reading(screen: Screen, document: dict[str, Any], folder: Any) -> None:
    task = document["task"]
    screen.fact("file", f"{document['path']}, {document['rows']:,} rows read as {document['format']}")
    if document["unused_columns"]:
        screen.fact("not read", "columns " + listed(document["unused_columns"]))
    if folder.unused:
        screen.fact("not read", "files " + listed(folder.unused))
    if talk := document["conversations"]:
        learned = f"{talk['answers']:,} answers of {talk['conversations']:,} conversations"
        screen.fact("learned", f"{learned}, at most {talk['longest']:,} of one")
        if talk["tools"]:
            screen.fact("tools", f"{listed(talk['tools'])}; {talk['calling']:,} answers call them")
    if document["checks"]:
        counts = [f"{name} ({count:,} rows)" for name, count in document["checks"].items()]
        screen.fact("checked by", listed(counts))
    kinds = {"closed": "closed set of labels", "short": "short answers", "free": "free text", "questions": "questions"}
    screen.fact("task", f"{kinds[task['kind']]}, because {task['why']}")
    screen.fact("metric", metric_name(task["metric"]))
    systems = {turn["content"] for row in folder.train.examples for turn in row.messages if turn["role"] == "system"}
    whose = "the rows' own system turn"
    instruction = task["instruction"] or "none; " + (whose if systems else "the model's own system turn")
    screen.fact("instruction", f"{whose}: " * (instruction in systems) + instruction)


def _show_schema(screen: Screen, path: Path, schema: str, examples: Any) -> dict[str, Any]:
    """Print how many training answers keep to the schema, and the first that does not."""
    from riyaz.quality.schema_rows import misfits

    wrong = misfits(schema, examples)
    screen.fact("schema", f"{path}, which {len(examples) - len(wrong):,} of {len(examples):,} answers keep to")
    for each in wrong[:SHOWN]:
        screen.fact("", f"{each.where}: {each.why}")
    return {"path": str(path), "misfits": [each._asdict() for each in wrong]}


def _tokens(screen: Screen, examples: Any, task: Any, model: str, window: slice, *, wanted: bool) -> dict[str, Any]:
    """Prints the rendered rows of a window, and token lengths; only a note if the model is missing and not `wanted`."""
    from riyaz.artifact import TextPart
    from riyaz.data.rows import divided_note, encode_rows, joined, rendered
    from riyaz.families import describe
    from riyaz.prompting import messages_for
    from riyaz.sources import open_source

    try:
        source = open_source(model)
        tokenizer, context = source.tokenizer(), describe(source).config.context
    except RiyazError as error:
        if wanted:
            raise
        screen.talk.print(f"rows are not rendered: {error}", style="dim", soft_wrap=True)
        return {"model": None}
    for note in tokenizer.notes:
        screen.fact("template", note)
    text = TextPart(instruction=task.instruction)
    conversations = [messages_for(text, task, example.messages, []) for example in examples]
    pairs, shown = list(zip(conversations, examples)), []
    for example, (prompt, answer) in zip(examples[window], rendered(tokenizer, pairs[window])):
        shown.append({"where": example.where, "prompt": prompt, "answer": answer})
        _show_row(screen, **shown[-1])
    rows, checks = encode_rows(tokenizer, pairs, context)
    if task.kind in ("short", "free") and (note := divided_note(joined(rows))):
        screen.fact("template", note)
    counts = {"prompt": [len(row.prompt) for row in rows], "answer": [len(row.answer) for row in rows]}
    lengths = {part: _lengths(each) for part, each in counts.items()}
    screen.data.print()
    for part, statistic in lengths.items():
        screen.fact(f"{part} tokens", _named(statistic))
    wrong = [f"{name} ({check['failed']} rows)" for name, check in checks.items() if check["failed"]]
    screen.fact("checks", f"not held: {few(wrong)}" if wrong else f"all {len(checks)} held in every row")
    histogram = {part: _histogram(each) for part, each in counts.items()}
    return {"model": model, "tokens": lengths, "histogram": histogram, "checks": checks, "rendered": shown}


def _show_row(screen: Screen, where: str, prompt: str, answer: str) -> None:
    """Prints one row as the model sees it, with the answer (the loss is on it) coloured or bracketed."""
    coloured = screen.data.is_terminal and not screen.data.no_color
    shown = answer if coloured else f"{OPEN}{answer}{CLOSE}"
    screen.data.print(Text(f"\n{where}, loss on the {'green' if coloured else 'bracketed'} part", style="dim"))
    screen.data.print(Text.assemble(prompt, (shown, LEARNED)), soft_wrap=True)


def _show_split(screen: Screen, report: dict[str, Any]) -> None:
    from riyaz.data.spellings import visible

    rows, leakage = report["rows"], report["leakage"]
    parts = f"{rows['train']:,} to train on, {rows['valid']:,} to validate on, {rows['test']:,} to test on"
    screen.fact("split", parts)
    repeated = f"{report['duplicates']:,} rows repeat a prompt, {report['conflicts']:,} with another answer"
    screen.fact("duplicates", repeated)
    share = f"{leakage['test_rows']:,} test rows ({leakage['share']:.1%})"
    screen.fact("leakage", f"{share} are also in the training rows")
    if telling := report.get("answer_in_prompt"):
        rows_read = f"{telling['rows']:,} of {telling['looked_at']:,} different prompts ({telling['share']:.1%})"
        screen.fact("in prompts", f"{rows_read} hold their label{'' if telling['telling'] else '; no sign tells it'}")
    screen.fact("answer words", _named(report["answer_words"]))
    labels = list(report["labels"].items())
    for place, (label, counts) in enumerate(labels[:LABELS]):
        shown = visible(label)
        plain = label if label in shown else shown
        screen.fact("" if place else "labels", f"{plain}: {_named(counts)}")
    if len(labels) > LABELS:
        screen.fact("", f"and {len(labels) - LABELS} more labels; --json has all of them")
    for note in report["notes"]:
        screen.fact("note", note)


def _named(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def _histogram(counts: list[int]) -> dict[str, list[int]]:
    """BINS bins of equal width: their edges, and how many rows have a length from one edge to below the next."""
    width = -(-(max(counts) + 1) // BINS)
    bins = Counter(count // width for count in counts)
    return {"edges": [width * place for place in range(BINS + 1)], "counts": [bins[place] for place in range(BINS)]}


def _lengths(counts: list[int]) -> dict[str, float]:
    ordered = sorted(counts)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": statistics.median(ordered), "p95": p95, "longest": ordered[-1]}
