"""The process of one piece of work, with a small script in the place of Python: what it says and how it ends."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import assert_refused
from waiting import HANG

from riyaz.cli import signals
from riyaz.comparison import processes
from riyaz.events import Event, Failed, Note, Phase, Progress, to_json

PYTHON = sys.executable
LIVE = f"signal.alarm({2 * int(HANG)}); signal.pause()"  # to be killed: it ends by itself only after what is a hang


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lets `processes.run` start the given lines of Python instead of a worker."""

    def write(body: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!{PYTHON} -S\nimport os, signal, sys\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(processes.sys, "executable", str(path))

    return write


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C and the end of a terminal are heard, also in tests that a script or nohup started."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(tmp_path: Path, listen=lambda event: None) -> str:
    return processes.run_worker(["fit", "somewhere", "lora", "kept"], tmp_path / "logs/log.txt", listen)


def test_events_arrive_and_noise_does_not(script, tmp_path: Path) -> None:
    said = [Phase("train"), Progress("train", 1, 2)]
    noise = ["a library says hello", "[1, 2]", '{"no": "event"}']
    lines = [to_json(said[0]), *noise, to_json(said[1])]
    script("".join(f"print({line!r})\n" for line in lines) + "print(sys.argv[1:], file=sys.stderr)\n")
    events: list[Event] = []
    assert run(tmp_path, events.append) == ""
    assert events == said
    logged = (tmp_path / "logs/log.txt").read_text()
    assert logged == "['-m', 'riyaz.comparison.worker', 'fit', 'somewhere', 'lora', 'kept']\n"


def test_it_is_stopped_at_its_limit_and_not_before(script, tmp_path: Path) -> None:
    def limited(limit: float) -> str:
        return processes.run_worker(["fit", "somewhere"], tmp_path / "log.txt", lambda event: None, limit=limit)

    script(LIVE)
    assert limited(0.1) == processes.STOPPED
    script("")
    assert limited(10 * HANG) == ""
    for timer in (each for each in threading.enumerate() if isinstance(each, threading.Timer)):
        timer.join(HANG)
        assert not timer.is_alive(), "it ends with the process, not at the limit"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by the system, most often because memory ran out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal SIGSEGV; see {log}"),
        ("raise KeyError('x')", "ended with exit code 1; see {log}"),
        (f"print({to_json(Failed('out of memory'))!r}); sys.exit(3)", "out of memory"),
        (f"print({to_json(Failed('a first thought'))!r})", ""),
    ],
)
def test_how_it_ended_is_said_in_one_line(script, tmp_path: Path, body: str, reason: str) -> None:
    script(body)
    assert run(tmp_path) == reason.format(log=tmp_path / "logs/log.txt")
    if "KeyError" in body:
        assert "KeyError: 'x'" in (tmp_path / "logs/log.txt").read_text()


def test_work_that_all_depends_on_raises(script, tmp_path: Path) -> None:
    script("os.kill(os.getpid(), signal.SIGKILL)")
    with assert_refused("killed by the system"):
        processes.run_or_raise(["measure", "somewhere"], tmp_path / "log.txt", lambda event: None)
    script("pass")
    processes.run_or_raise(["measure", "somewhere"], tmp_path / "log.txt", lambda event: None)


def test_a_child_stopped_by_ctrl_c_stops_the_parent(script, tmp_path: Path) -> None:
    script("signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_stopped_parent_leaves_no_child(
    script, tmp_path: Path, monkeypatch, stubborn: bool, number: signal.Signals
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0 if stubborn else HANG)
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def noted(*given, **named) -> subprocess.Popen[str]:
        started.append(start(*given, **named))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", noted)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    script(
        f"{ignore}open(os.environ['TMPDIR'] + '/cache', 'w').close()\n"
        'print(\'{"event": "note", "version": 1, "text": "%d"}\' % os.getpid(), flush=True)\n' + LIVE
    )
    children: list[int] = []

    def listen(event: Event) -> None:
        assert isinstance(event, Note)
        children.append(int(event.text))
        assert [path.name for path in (tmp_path / "logs").glob(".*/*")] == ["cache"]
        os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt), signals.heard():
        run(tmp_path, listen)
    assert os.listdir(tmp_path / "logs") == ["log.txt"], "what the child kept in its temporary folder is gone"
    assert [child.returncode for child in started] == [-signal.SIGKILL if stubborn else -signal.SIGTERM]
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_a_worker_leaves_with_its_parent() -> None:
    code = (
        "import os, signal, threading; from riyaz.comparison.worker import _end_with\n"
        "threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()\n"
        f"print(os.getpid(), flush=True); {LIVE}"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    closed = threading.Thread(target=parent.stdout.read)  # at its end nobody has the pipe open any more
    closed.start()
    closed.join(HANG)
    alive = closed.is_alive()
    if alive:
        os.kill(child, signal.SIGKILL)
    parent.wait()
    assert not alive
