"""/page/runs, /page/run, /page/rows, /page/difference, /page/report: what the files of runs say."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from riyaz.errors import RiyazError, shown
from riyaz.files import is_bare
from riyaz.json_files import read_json, to_document
from riyaz.report.comparison.examples import browser_data
from riyaz.report.comparison.next_commands import after_comparison
from riyaz.results import PREDICTIONS, Answer, Comparison, PretrainRun
from riyaz.serve.page.place import REPORT, Page
from riyaz.serve.page.runs import (
    ARMS,
    KEPT,
    MOST_RUNS,
    SETTINGS,
    Document,
    Run,
    document_of,
    find_runs,
    is_done,
    progress_of,
    recorded_arms,
)
from riyaz.serve.page.starting import ANEW, said
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of

PLAN, HTML = "plan.json", "report.html"
PAGE_ROWS = 50  # that one answer holds at most
FAILED = (1, 2)  # exit statuses of a bug and of a wrong input
# A report is one file with its own scripts and pictures, which may have come with a stranger's run: it is shown without
# the page's origin, and so without its token.
SANDBOX = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
}  # fmt: skip


async def listed(request: Request) -> Response:
    """GET /page/runs: every run below the page's folder, the latest first; beside them the samples of the package."""
    page = page_of(request)
    runs, samples = await asyncio.to_thread(lambda: [_entries(each) for each in (page, page.samples())])
    runs.sort(key=lambda entry: -entry["changed"])
    return JSONResponse({"runs": runs[:MOST_RUNS], "more": max(0, len(runs) - MOST_RUNS), "samples": samples})


def _entries(page: Page) -> list[dict[str, Any]]:
    return [entry_of(page, run, *_read(run)) for run in find_runs(page.folder)]


def _read(run: Run) -> tuple[Document, str]:
    """The result file of a run, and why it cannot be read."""
    try:
        return document_of(run), ""
    except (RiyazError, OSError) as error:
        return None, str(error)


def entry_of(page: Page, run: Run, document: Document, damage: str) -> dict[str, Any]:
    """A run in the list: what it is at, its pick and score where they are there, or why its files cannot be read."""
    entry: dict[str, Any] = {
        "path": page.name(run.path), "kind": run.kind, "started": run.started, "changed": run.path.stat().st_mtime,
        "command": run.begun.command if run.begun else "", "pick": None, "score": None, "problem": None,
        "sample": page.prefix != "",
    }  # fmt: skip
    process = said(run.path)
    if damage:
        return {**entry, "state": "running" if run.running else "unreadable", "problem": damage}
    entry["state"] = run.state(is_done(document))
    if process is not None and process["status"] is None:  # it has not begun to write yet
        return {**entry, "state": "running", "command": process["command"]}
    if process is not None and process["status"] in FAILED and entry["state"] not in ("done", "running"):
        return {**entry, "state": "failed", "problem": process["line"], "command": process["command"]}
    if run.ended is not None and entry["state"] == "failed":
        entry["problem"] = run.ended.reason
    entry["command"] = entry["command"] or getattr(document, "command", "")
    if isinstance(document, Comparison):
        entry["pick"] = document.pick
        picked = document.arm(document.pick)
        entry["score"] = picked.score if picked else None
    elif isinstance(document, PretrainRun) and document.result is not None:
        entry["score"] = document.result.bits_per_byte
    return entry


async def one(request: Request) -> Response:
    """GET /page/run?path=P: everything that the files of a run say."""
    name = request.query_params.get("path", "")
    page = page_of(request).holding(name)
    begun = said(page.folder / name)
    if begun is not None and Run.of(page.folder / name) is None:  # it reads its data yet, or refused it
        state = "running" if begun["status"] is None else "failed"
        problem = begun["line"] or None
        return JSONResponse({"path": name, "state": state, "problem": problem, "document": None, **begun})
    run = run_of(request)
    return JSONResponse(await asyncio.to_thread(lambda: full_entry_of(page, run)))


def run_of(request: Request, name: str = "path") -> Run:
    """The run that a request names. Raises Problem 404."""
    value = request.query_params.get(name, "")
    page = page_of(request).holding(value)
    path = page.inside(value, name)
    run = Run.of(path)
    if run is None:
        raise Problem(404, f"there is no run in {shown(page.name(path))}", name)
    return run


def full_entry_of(page: Page, run: Run) -> dict[str, Any]:
    """A run with its result file, its plan and settings, what its events add up to, and what to do next."""
    document, damage = _read(run)
    entry = entry_of(page, run, document, damage)
    problems = [entry["problem"]] if entry["problem"] else []
    files: dict[str, Any] = {}
    for key, name in (("plan", PLAN), ("settings", SETTINGS)):
        try:
            files[key] = read_json(run.path / name) if (run.path / name).is_file() else None
        except RiyazError as error:
            files[key] = None
            problems.append(str(error))
    made = {
        **entry, **files, **to_document(progress_of(run.path)), "document": to_document(document),
        "problems": problems, "commands": commands_of(page, run, document, entry["state"]),
        "report": _report_link(page, run), "learned": recorded_arms(run),
    }  # fmt: skip
    return {**(made["document"] or {}), **made} if run.kind == "pretrain" else made


def commands_of(page: Page, run: Run, document: Document, state: str) -> list[dict[str, str]]:
    """What to do with a run next, as command lines to be given in the page's folder; nothing with a sample."""
    if page.prefix:
        return []
    name = page.name(run.path)
    begun = run.begun.command if run.begun else ""
    if state in ("stopped", "cut", "failed", "planned"):
        again = begun if run.kind in ANEW or "--resume" in begun else f"{begun} --resume"
        return [{"title": "go on", "command": again}] if begun.startswith("riyaz ") else []
    if state != "done":
        return []
    if isinstance(document, Comparison):
        commands = [*after_comparison(document, Path(name)), ("serve", f"riyaz serve {name}")]
        return [{"title": title, "command": command} for title, command in commands]
    return [{"title": "chat", "command": f"riyaz chat {name}"}] if run.kind == "pretrain" and document else []


def _report_link(page: Page, run: Run) -> str | None:
    """The address of a run's report, with the ticket that opens it alone."""
    if not (run.path / HTML).is_file():
        return None
    name = page.name(run.path)
    return f"{REPORT}?{urlencode({'path': name, 'ticket': page.ticket(name)})}"


async def report(request: Request) -> Response:
    """GET /page/report?path=P: a run's report.html, as a page of its own."""
    name = request.query_params.get("path", "")
    path = page_of(request).holding(name).inside(f"{name}/{HTML}")
    return FileResponse(path, headers=SANDBOX, media_type="text/html; charset=utf-8")


async def rows(request: Request) -> Response:
    """GET /page/rows?path=P&arms=A,B&only=disagreements&offset=N: test rows with the answers of the arms."""
    run, query = run_of(request), request.query_params
    if run.kind != "compare":
        raise Problem(400, "only comparisons have rows of several arms", "path")
    start = int(query["offset"]) if query.get("offset", "").isdecimal() else 0
    names = [name for name in query.get("arms", "").split(",") if is_bare(name)]
    return JSONResponse(await asyncio.to_thread(lambda: side_by_side(run, names, query.get("only", ""), start)))


def side_by_side(run: Run, names: list[str], only: str, start: int) -> dict[str, Any]:
    """PAGE_ROWS rows from a place on. `only` "disagreements": those on which some arms are right and others wrong."""
    document = document_of(run)
    if not isinstance(document, Comparison):
        raise Problem(409, "the comparison has no rows yet; they come when it is finished", "path")
    answers = {}
    for arm in document.arms:
        paths = sorted((run.path / ARMS / arm.name).glob(f"*/{PREDICTIONS}"), key=lambda p: p.parent.name != KEPT)
        parts = [path for path in paths if path.parent.name == KEPT or path.parent.name.startswith("fold-")]
        if parts and (not names or arm.name in names):
            answers[arm.name] = [row for path in parts for row in Answer.read(path)]
    data = browser_data(document, answers)
    matching = data["rows"]
    if only == "disagreements":
        matching = [row for row in matching if _is_disputed(row, data["right"])]
    return {**data, "rows": matching[start : start + PAGE_ROWS], "total": len(matching), "offset": start}


def _is_disputed(row: dict[str, Any], right: float) -> bool:
    """Whether some arms are right on a row and others wrong."""
    scores = [said[1] for said in row["said"] if said is not None and said[1] is not None]
    return len({score >= right for score in scores}) > 1


async def difference(request: Request) -> Response:
    """GET /page/difference?a=P&b=Q: the settings in which two runs differ."""
    runs = [run_of(request, name) for name in ("a", "b")]
    first, second = [await asyncio.to_thread(settings_of, run) for run in runs]
    names = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    return JSONResponse({
        "differences": [{"name": name, "a": first.get(name), "b": second.get(name)} for name in names],
        "same": len({*first, *second}) - len(names),
    })  # fmt: skip


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of a run by dotted names, such as `settings.seed`."""
    if run.kind == "compare":
        return flat(read_json(run.path / SETTINGS) if (run.path / SETTINGS).is_file() else {})
    document = to_document(document_of(run))
    parts = ("asked", "model", "plan", "seed", "text", "tokenizer")
    return flat({key: document[key] for key in parts if key in document})


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a document by their dotted names; lists are leaves."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part in value for key, leaf in flat(value[part], f"{name}.{part}".strip(".")).items()}
