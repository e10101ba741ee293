"""What `riyaz` without a command says last: the next command for the folder that it is in."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import extras

if TYPE_CHECKING:
    from riyaz.serve.page.runs import Run

BUDGET = "--budget 10m"
DEEP = 2  # folders below this one in which a comparison is looked for


def next_step(folder: Path) -> str:
    """One line: a comparison that runs, was stopped or is finished; rows that could be compared; a model to pull."""
    from riyaz.data.tables import kind_of
    from riyaz.engine.opening import EMBEDDER
    from riyaz.serve.page.runs import find_runs
    from riyaz.sources import store

    runs = [run for run in find_runs(folder) if run.kind == "compare" and run.begun is not None]
    if runs := [run for run in runs if len(run.path.relative_to(folder).parts) <= DEEP]:
        return _of_run(max(runs, key=lambda run: run.started or 0), folder)
    models = [entry.name for entry in store.models()]
    if not models or models == [EMBEDDER]:
        return "riyaz pull smollm2-135m"
    if extras.absent("train"):
        model = next(name for name in models if name != EMBEDDER)
        return f"riyaz chat {model}; to compare ways of adapting it: {extras.install('train')}"
    rows = sorted(path.name for path in folder.iterdir() if kind_of(path) and path.is_file())
    if any(name.startswith("train.") for name in rows):
        return f"riyaz compare . {BUDGET}"
    if rows:
        return f"riyaz compare {_named(rows[0])} {BUDGET}"
    return f"riyaz compare ROWS {BUDGET}, where ROWS is a file of your examples"


def _of_run(run: "Run", folder: Path) -> str:
    """What one can do with the latest comparison in a folder."""
    from riyaz.serve.page.runs import document_of, is_done

    place = _named(str(run.path.relative_to(folder)))
    state = run.state(is_done(document_of(run)))
    if state == "running":
        return f"{place} is being compared; riyaz ui shows how far it is"
    if state == "done":
        more = f"; what its pick may need: {extras.install('compare')}" if extras.absent("compare") else ""
        ask = f"riyaz run {place} ROWS --out answers.jsonl answers the rows of a file, riyaz chat {place} a question"
        return f"{place} is finished; {ask}{more}"
    assert run.begun is not None
    return f"{place} was stopped; {_again(run.path, folder, run.begun.command)}"


def _again(out: Path, folder: Path, command: str) -> str:
    """How a stopped comparison goes on: its command, in the folder where it was begun."""
    if extras.absent("train"):
        return f"to go on: {extras.install('train')}"
    words = shlex.split(command)
    named = next((place for place, word in enumerate(words) if word.partition("=")[0] == "--out"), None)
    if named is None:
        written = Path(out.name)
    else:
        written = Path(words[named].partition("=")[2] or next(iter(words[named + 1 :]), ""))
    parts = [part for part in written.parts if part != "."]
    begun = Path(*out.parts[: len(out.parts) - len(parts)])
    if written.is_absolute() or ".." in parts or begun.joinpath(*parts) != out:
        return f"this goes on, in the folder where it was begun: {command}"
    if begun == folder:
        return f"this goes on: {command}"
    return f"this goes on: cd {_named(os.path.relpath(begun, folder))} && {command}"


def _named(path: str) -> str:
    """A path for a shell, which is no option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
