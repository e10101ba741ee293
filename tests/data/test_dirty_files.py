"""Twelve files as people have them, each from `riyaz data` over `adapt` to `run` and `evaluate`.

What is wrong with a file is said or asked for once; what was said of the training file is not asked again.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from tiny_comparison import command, strict

THINGS = {"Bremse": "Reparatur", "Kette": "Reparatur", "Gabel": "Ersatzteil", "Klingel": "Ersatzteil",
          "Öffnung": "Auskunft", "Rechnung": "Auskunft"}  # fmt: skip
SAID = (
    "Guten Tag, was ist mit: {}?", "Die {} ist kaputt – „schon wieder“", "{}, bitte\nbis morgen",
    "Preis für {}; wie hoch?", "{}?",
)  # fmt: skip
MESSAGES = [(form.format(thing), label) for thing, label in THINGS.items() for form in SAID]  # 30 rows, 3 labels
HOW = "Antworte mit Reparatur, Ersatzteil oder Auskunft."
Row = dict[str, Any]


def separated(rows: Sequence[Row], mark: str) -> str:
    """The rows as a spreadsheet program writes them: fields quoted where that is needed, lines that end with CRLF."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=mark, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows: Sequence[Row]) -> str:
    """JSON Lines with blank lines between them, and NaN for the number NaN."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n\n" for row in rows)


def workbook(rows: Sequence[Row]) -> bytes:
    """The rows on the first sheet of an Excel workbook, before a sheet of notes."""
    book, out = openpyxl.Workbook(), io.BytesIO()
    sheet = book.active
    sheet.append(list(rows[0]))
    for row in rows:
        sheet.append(list(row.values()))
    book.create_sheet("Notizen").append(["nichts"])
    book.save(out)
    return out.getvalue()


def two(prompt: str, answer: str, rows: Sequence[tuple[Any, Any]] = MESSAGES) -> list[Row]:
    return [{prompt: text, answer: label} for text, label in rows]


def emptied(rows: Sequence[tuple[str, Any]], missing: Any) -> list[tuple[str, Any]]:
    """The rows, seven of them without an answer."""
    return [(text, missing if n % 4 == 1 and n < 28 else label) for n, (text, label) in enumerate(rows)]


def in_many_ways(label: str, n: int) -> str:
    return (label, label.lower(), f"{label[:3]}\u200b{label[3:]}", f" {label} ")[n % 4]


def turns(text: str, label: str | None) -> Row:
    own = [{"role": "system", "content": HOW}, {"role": "user", "content": text}]
    return {"messages": own + ([{"role": "assistant", "content": label}] if label else [])}


@dataclass(frozen=True)
class Dirty:
    """A file, how it is written, what must be passed with it once, and what `riyaz data` says."""

    name: str
    rows: list[Row]
    write: Callable[[list[Row]], bytes]
    says: tuple[str, ...]
    flags: tuple[str, ...] = ()
    refused: str = ""  # without the flags
    asked: Callable[[Row], Row] = lambda row: {name: value for name, value in row.items() if name not in ANSWERS}


ANSWERS = ("label", "Wohin", "Kategorie", "Antwort", "ref")
TALK = [
    (f'name[{thing}], Preis[{n}],\n"Ort"[Hof]', f'Die {thing} kostet {n} Euro, sagt "Hof",\nmehr nicht.')
    for n, thing in enumerate([*THINGS] * 4)
]  # fmt: skip
NUMBERS = {label: float(n) for n, label in enumerate(sorted(set(THINGS.values())))}
COUNTED = [(text, NUMBERS[label]) for text, label in MESSAGES]
MIXED = [(text, in_many_ways(label, n)) for n, (text, label) in enumerate(MESSAGES)]
MISSING = "--skip-incomplete"

FILES = [
    Dirty("bom.csv", two("text", "label"), lambda rows: separated(rows, ",").encode("utf-8-sig"),
          ("30 rows read as text,label", "closed set of labels")),
    Dirty("semikolon.csv", two("Nachricht", "Kategorie"), lambda rows: separated(rows, ";").encode(),
          ("30 rows read as Nachricht,Kategorie", "columns guessed", "'Nachricht' is the prompt")),
    Dirty("ansi.csv", two("Nachricht", "Kategorie"), lambda rows: separated(rows, ";").encode("cp1252"),
          ("30 rows read as Nachricht,Kategorie",), ("--encoding", "cp1252"), "ansi.csv:"),
    Dirty("leer.jsonl", two("text", "label", emptied(MESSAGES, "")), lambda rows: lines(rows).encode(),
          ("23 rows read as text,label", "rows left out because they have no prompt or no answer: 7"), (MISSING,),
          "leer.jsonl:3: the row has no 'label' (and 6 more: lines 11, 19, 27, 35, 43, …)"),
    Dirty("nan.jsonl", two("input", "label", emptied(COUNTED, float("nan"))),
          lambda rows: lines(rows).encode(), ("23 rows read as input,label", "'input' is the prompt"), (MISSING,),
          "nan.jsonl:3: 'label' is the number NaN, not text (and 6 more"),
    Dirty("gross.jsonl", two("text", "label", MIXED), lambda rows: lines(rows).encode(),
          ("labels that differ only by case", "'Auskunft' and 'Aus\\u200bkunft' and")),
    Dirty("frage.tsv", [{"Nr": n, "am": f"2026-11-{n + 1:02}", "Antwort": f"{label} {n}", "Frage": text}
                        for n, (text, label) in enumerate(MESSAGES)],
          lambda rows: separated(rows, "\t").encode(), ("30 rows read as Frage,Antwort", "columns Nr, am")),
    Dirty("mr.csv", two("mr", "ref", TALK + TALK[:5]), lambda rows: separated(rows, ",").encode(),
          ("29 rows read as mr,ref", "5 rows repeat a prompt", "free text")),
    Dirty("anfragen.xlsx", [{"Nr": n, "am": date(2026, 11, 1 + n % 28), "Nachricht": text, "Kategorie": label}
                            for n, (text, label) in enumerate(MESSAGES)],
          workbook, ("30 rows read as Nachricht,Kategorie", "'Nachricht' is the prompt", "columns Nr, am")),
    Dirty("gemischt.xlsx", two("Was", "Wohin", [(n + 0.5, "Auskunft") for n in range(3)] + MIXED), workbook,
          ("33 rows read as Was,Wohin", "columns guessed", "labels that differ only by case")),
    Dirty("luecken.xlsx", two("text", "label", emptied(COUNTED, None)), workbook,
          ("23 rows read as text,label", "rows left out because they have no prompt or no answer: 7"), (MISSING,),
          "luecken.xlsx:Sheet:3: the row has no 'label' (and 6 more: rows 7, 11, "),
    Dirty("messages.jsonl", [turns(*row) for row in MESSAGES], lambda rows: lines(rows).encode(),
          ("30 rows read as messages", f"the rows' own system turn: {HOW}"),
          asked=lambda row: {"messages": row["messages"][:-1]}),
]  # fmt: skip


@pytest.mark.parametrize("dirty", FILES, ids=lambda dirty: dirty.name)
def test_a_dirty_file_goes_from_data_to_run(
    dirty: Dirty, inside: list, one_core: pytest.MonkeyPatch, asked: tuple, model_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path(dirty.name).write_bytes(dirty.write(dirty.rows))
    if dirty.flags:
        refused = command("data", dirty.name)
        assert refused.status == 2 and dirty.refused in refused.line and " ".join(dirty.flags) in refused.line
    shown = command("data", dirty.name, *dirty.flags, "--model", model_folder)
    assert shown.status == 0 and all(part in shown.out for part in dirty.says), shown.out

    made = command("adapt", "nearest", dirty.name, *dirty.flags, *asked, "--out", "made")
    assert made.status == 0, made.err
    for part in dirty.says[1:]:
        if part.startswith(("columns guessed", "rows left out", "labels that differ")):
            assert part in made.err

    questions = f"questions{Path(dirty.name).suffix}"
    Path(questions).write_bytes(dirty.write([dirty.asked(row) for row in dirty.rows]))
    ran = command("run", "made", questions, "--out", "answers.jsonl")
    assert ran.status == 0, ran.err
    assert "guessed" not in ran.err
    answers = [strict(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(answers) == len(dirty.rows) and all(row["prediction"] for row in answers)

    scored = command("evaluate", "made", "--test", dirty.name, "--json")
    assert scored.status == 0, scored.err
    assert "guessed" not in scored.err and scored.document["score"] > 0.5


def test_the_system_turn_of_the_rows_is_the_instruction_of_the_artifact(
    inside: list, one_core: pytest.MonkeyPatch, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(lines([turns(*row) for row in MESSAGES]), encoding="utf-8")
    assert command("adapt", "zero_shot", "rows.jsonl", *asked, "--out", "made").status == 0
    assert json.loads(Path("made/riyaz.json").read_text(encoding="utf-8"))["text"]["instruction"] == HOW
    Path("ask.csv").write_text("text\nDie Klingel fehlt\n", encoding="utf-8")
    told = command("run", "made", "ask.csv", "--out", "answers.jsonl")
    assert told.status == 0, told.err
    assert strict(Path("answers.jsonl").read_text(encoding="utf-8"))["prediction"] in THINGS.values()
