"""What `riyaz` without a command says last: the next command for the folder that it is in."""

import shlex
from pathlib import Path

ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet", ".xlsx")
BUDGET = "--budget 10m"


def next_step(folder: Path) -> str:
    """One line: a comparison that runs, was stopped or is finished; rows that could be compared; a model to pull."""
    from riyaz.serve.page.runs import document_of, find_runs, is_done
    from riyaz.sources import store

    runs = [run for run in find_runs(folder) if run.kind == "compare" and run.begun is not None]
    if runs:
        latest = max(runs, key=lambda run: run.started or 0)
        place = shlex.quote(str(latest.path.relative_to(folder)))
        state = latest.state(is_done(document_of(latest)))
        if state == "running":
            return f"{place} is being compared; riyaz ui shows how far it is"
        if state == "done":
            return f"{place} is finished; riyaz run {place} ROWS --out answers.jsonl, or riyaz chat {place}"
        assert latest.begun is not None
        return f"{place} was stopped; this goes on: {latest.begun.command}"
    if not store.models():
        return "riyaz pull smollm2-135m"
    rows = sorted(path.name for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    if any(name.startswith("train.") for name in rows):
        return f"riyaz compare . {BUDGET}"
    if rows:
        return f"riyaz compare {shlex.quote(rows[0])} {BUDGET}"
    return f"riyaz compare ROWS {BUDGET}, where ROWS is a file of your examples"
