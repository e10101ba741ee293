"""/page/plan, /page/start, /page/stop: runs that the page begins are the command line, in a process of its own.

The process gets a session of its own, so that it outlives the server. What it prints goes to a log in the hidden folder
`.riyaz-page`; its files are those of any run.
"""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import hardware
from riyaz.config.checking import parse_budget
from riyaz.errors import RiyazError, shown
from riyaz.files import is_bare
from riyaz.serve.fields import FLAG, Field, listed, text, whole
from riyaz.serve.http import MB, read_body, unless_gone
from riyaz.serve.page.place import Page
from riyaz.serve.page.runs import Run
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of
from riyaz.system import PLAIN_FILE

LOGS = ".riyaz-page"
LOG_TAIL = 4096  # bytes at the end of a log that are read
BODY: dict[str, Field] = {
    "verb": Field({"type": "string", "enum": ["compare", "pretrain", "limits", "resume"]}),
    "data": Field(text(1024, 1)), "test": Field(text(1024, 1)), "rows": Field(text(1024, 1)),
    "documents": Field(text(1024, 1)), "questions": Field(text(1024, 1)),
    "texts": Field(listed(text(1024, 1), 100, 1)), "target": Field(text(1024, 1)), "path": Field(text(1024, 1)),
    "model": Field(text(1024, 1)), "out": Field(text(1024, 1)), "budget": Field(text(32, 1)),
    "more": Field(text(32, 1)), "size": Field({"type": "string", "enum": ["1m", "5m", "15m", "50m"]}),
    "methods": Field(listed(text(64, 1), 32)), "limits": Field(FLAG), "ternary": Field(FLAG), "seed": Field(whole(0)),
}  # fmt: skip
ARGUMENTS = {  # verb -> (what stands first, options)
    "compare": (("data",), ("model", "test", "documents", "questions", "budget", "more", "methods", "limits", "seed")),
    "pretrain": (("texts",), ("size", "budget", "ternary", "seed")),
    "limits": (("target",), ("rows", "documents", "budget")),
}  # fmt: skip
ANEW = ("compare", "limits")  # kinds of run whose command, given again, goes on or begins anew
PATHS, DURATIONS = ("data", "test", "documents", "questions", "texts", "rows"), ("budget", "more")


@dataclass(eq=False)
class Started:
    """A process that this server started, and where it prints to."""

    process: "subprocess.Popen[bytes]"
    command: str
    log: Path


_started: dict[Path, Started] = {}  # by the folder of the run
_starting: set[Path] = set()  # folders of runs that two pages may ask for at once


async def start(request: Request) -> Response:
    """POST /page/start: begin a run, or go on with one; its path, its command and its process."""
    body, headers = await read_body(request, BODY)
    page = page_of(request)
    out, words = resumed(page, body) if body.get("verb") == "resume" else arguments(page, body)
    return JSONResponse(await begun_run(page, out, words), 201, headers)


async def begun_run(page: Page, out: Path, words: list[str]) -> dict[str, Any]:
    """Begin a run by `riyaz WORDS…`; its path, its command and its process. Raises Problem where it runs already."""
    run = Run.of(out)
    if out in _starting or is_alive(out) or (run is not None and run.running):
        raise Problem(409, f"{page.name(out)} is being written by another riyaz; wait for it, or stop it", "out")
    _starting.add(out)
    try:
        made = await asyncio.to_thread(lambda: _begin(page, out, words))
    finally:
        _starting.discard(out)
    return {"path": page.name(out), "command": made.command, "pid": made.process.pid}


def _begin(page: Page, out: Path, words: list[str]) -> Started:
    """Start `riyaz WORDS…` in the page's folder. Raises RiyazError where the log cannot be written."""
    _expect_words(words)
    logs = page.folder / LOGS
    log = logs / f"{page.name(out).replace('/', '-')}.log"
    try:
        logs.mkdir(exist_ok=True)
        if logs.is_symlink():
            raise RiyazError("is a link", str(logs), "remove it")
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | PLAIN_FILE, 0o600), "wb") as file:
            process = subprocess.Popen(
                [*_riyaz(), *words], cwd=page.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise RiyazError(f"cannot be started ({error.strerror})", str(log), "free some space or memory") from None
    threading.Thread(target=process.wait, daemon=True).start()  # so that its end is seen, and nothing is left of it
    made = Started(process, shlex.join(["riyaz", *words]), log)
    _started[out] = made
    return made


def _expect_words(words: list[str]) -> None:
    """Raises Problem for words that no process can be started with."""
    if strange := next((word for word in words if "\0" in word), None):
        raise Problem(400, f"{shown(strange)} holds a NUL character, which no name can", None)


def _riyaz() -> list[str]:
    return [sys.executable, "-m", "riyaz.cli.main"]


def arguments(page: Page, body: dict[str, Any], verb: str | None = None) -> tuple[Path, list[str]]:
    """(folder of the run, words of the command line) of what is asked for. Raises Problem for a path out of the page's
    folder, and for an option that the verb has not."""
    verb = verb or body.get("verb") or ""
    if verb not in ARGUMENTS:
        raise Problem(400, "verb: is missing", "verb", "missing_required_parameter")
    first, options = ARGUMENTS[verb]
    words: list[str] = [verb]
    for name in first:
        if name not in body:
            raise Problem(400, f"{name}: is missing", name, "missing_required_parameter")
        values = body[name] if isinstance(body[name], list) else [body[name]]
        words += [model_of(page, each, name) if name == "target" else _path(page, each, name) for each in values]
    for name in options:
        value = body.get(name)
        if name in first or value in (None, False, [], ""):
            continue
        words += [f"--{name}", *([] if value is True else [_option(page, name, value)])]
    out = _out(page, verb, body)
    return out, [*words, "--out", page.name(out)]


def resumed(page: Page, body: dict[str, Any]) -> tuple[Path, list[str]]:
    """(folder, words of the command line) that go on with a run: the command that it began with, which may have been
    given in another folder, or come with a stranger's run. So it writes to the run's own folder, whatever it says."""
    path = page.inside(body.get("path", ""))
    run = Run.of(path)
    if run is None or run.begun is None:
        raise Problem(
            409, f"{shown(page.name(path))} does not say how it was begun; go on with it by its command", "path"
        )
    try:
        program, *words = shlex.split(run.begun.command)
    except ValueError:
        program, words = "", []
    if program != "riyaz" or not words or words[0] not in ("compare", "pretrain", "ternarize", "limits"):
        raise Problem(409, f"it was begun by {shown(run.begun.command)}; go on with it there", "path")
    if any(word.replace("_", "-").startswith("--unsafe") for word in words):  # a stranger's run may not ask for this
        raise Problem(409, "it runs generated code with limits alone; go on with it by its command", "path")
    if any(word.startswith(("--place", "--ray")) for word in words):  # nor say where it is trained
        raise Problem(409, "it runs at places that its command names; go on with it by its command", "path")
    again = _written_to(f"./{page.name(path)}", words)
    _expect_within(page, again)
    return path, again if run.kind in ANEW or "--resume" in again else [*again, "--resume"]


def _expect_within(page: Page, words: list[str]) -> None:
    """Raises Problem where a run's command, which may be a stranger's, reads a file or folder outside the page's."""
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    for value in [*values, *(part for each in values for part in each.split(","))]:
        if not (page.folder / value).resolve().is_relative_to(page.folder):
            what = f"it reads {shown(value)} outside the page's folder; go on with it by its command"
            raise Problem(409, what, "path")


def _written_to(out: str, words: list[str]) -> list[str]:
    """The words of a command line with this --out in the place of its own."""
    rest = [
        word for before, word in zip(["", *words], words) if before != "--out" and word.partition("=")[0] != "--out"
    ]
    return [*rest, "--out", out]


def _option(page: Page, name: str, value: Any) -> str:
    if name in PATHS:
        return _path(page, value, name)
    if name == "model":
        several = [] if os.path.lexists(page.folder / value) else value.split(",")
        return ",".join(model_of(page, each.strip(), name) for each in several or [value])
    if name in DURATIONS:
        try:
            parse_budget(value, name)
        except RiyazError as error:
            raise Problem(400, str(error), name) from None
    if name == "methods":
        if not all(map(is_bare, value)):
            raise Problem(400, "methods: not the names of methods", name)
        return ",".join(value)
    return str(value)


def _path(page: Page, value: str, param: str) -> str:
    """A path as the command line takes it: never an option."""
    return f"./{page.name(page.inside(value, param))}"


def model_of(page: Page, value: str, param: str) -> str:
    """A model's name, or a path inside the page's folder."""
    if is_bare(value) and not os.path.lexists(page.folder / value):
        return value
    return _path(page, value, param)


def _out(page: Page, verb: str, body: dict[str, Any]) -> Path:
    """The folder of a run that may not be there yet. Raises Problem for one that is not in the page's folder."""
    named = body.get("out") or f"runs/{verb}-{_stem(body)}"
    return page.new(named, "out")


def _stem(body: dict[str, Any]) -> str:
    """A name for a run: that of its data, text or target."""
    first = body.get("data") or (body.get("texts") or [""])[0] or body.get("target") or ""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in Path(first).stem) or "run"


def is_alive(out: Path) -> bool:
    """Whether a process that this server started for a run's folder has not ended."""
    made = _started.get(out)
    return made is not None and made.process.poll() is None


def said(out: Path) -> dict[str, Any] | None:
    """What a process that this server started is at, and its last line where it failed; None for any other run."""
    made = _started.get(out)
    if made is None:
        return None
    status = made.process.poll()
    return {
        "command": made.command,
        "pid": made.process.pid,
        "status": status,
        "line": _last_line(made.log) or _without_a_word(made.log, status) if status else "",
    }


def _last_line(log: Path) -> str:
    try:
        lines = log.read_bytes()[-LOG_TAIL:].decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "").removeprefix("error: ")


def _without_a_word(log: Path, status: int) -> str:
    """Why a process may have ended of which the log says nothing."""
    full = hardware.disk_free(log) < MB
    why = "the disk is full, so that it could not say why; free some space" if full else "it did not say why"
    return f"it ended with status {status}, and {why}"


async def stop(request: Request) -> Response:
    """POST /page/stop: tell a run to end, as Ctrl-C does: what it has is kept, and it can go on later."""
    body, headers = await read_body(request, {"path": Field(text(1024, 1), required=True)})
    page = page_of(request)
    path = page.folder.joinpath(body["path"]).resolve()
    run, made = Run.of(page.inside(body["path"])) if path.exists() else None, _started.get(path)
    if run is not None and run.running:
        assert run.begun is not None
        process = run.begun.process
    elif made is not None and made.process.poll() is None:
        process = made.process.pid
    else:
        raise Problem(409, f"{shown(body['path'])} does not run", "path")
    try:
        os.kill(process, signal.SIGTERM)  # SIGINT may be ignored, by those that a shell put into the background
    except OSError as error:
        raise Problem(403, f"its process cannot be told to end ({error.strerror})", "path") from None
    return JSONResponse({"path": body["path"], "pid": process}, 202, headers)


async def plan(request: Request) -> Response:
    """POST /page/plan: what a comparison would do, and how long it takes, by `riyaz compare … --dry-run`."""
    body, headers = await read_body(request, BODY)
    page = page_of(request)
    out, words = arguments(page, body, "compare")
    dry_run = [*words, "--dry-run", "--quiet"]
    return await unless_gone(request.receive, finished(page, dry_run, headers, page.name(out), "plan", typed=words))


async def finished(
    page: Page, words: list[str], headers: dict[str, str], path: str, member: str, typed: list[str] | None = None
) -> Response:
    """The JSON document of `riyaz WORDS… --json`, run to its end in the page's folder, as a member of an answer that
    also holds the command (`typed` where that is another). Raises Problem with the command's last line. It is
    told to end when nobody waits for it any longer."""
    _expect_words(words)
    process = await asyncio.create_subprocess_exec(
        *_riyaz(), *words, "--json", cwd=page.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, problems = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        line = next(reversed(problems.decode("utf-8", "replace").strip().splitlines()), "it ended without a word")
        raise Problem(400, line.removeprefix("error: "))
    command = shlex.join(["riyaz", *(typed or words)])
    return JSONResponse({"path": path, "command": command, member: json.loads(out.splitlines()[-1])}, headers=headers)
