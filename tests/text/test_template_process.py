"""The process that renders templates: ended when late, replaced when dead, gone when its parent is."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny_llama
from waiting import HANG, until

from riyaz import child
from riyaz.errors import RiyazError
from riyaz.text import template
from riyaz.text.template import render_chat

CHATML = tiny_llama.CHAT_TEMPLATE
HELLO = [{"role": "user", "content": "Hello"}]

LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set x = 9 ** (9 ** 9) %}{{ x }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
    "{% for i in range(99999) %}{% set x = range(99999)|sum %}{% endfor %}",
]


def render(source: str, conversation: list[dict] = HELLO, **variables: object) -> str:
    return render_chat(source, [conversation], add_generation_prompt=True, variables=variables)[0]


def worker_pid() -> int:
    render(CHATML)
    assert template._worker.pid is not None
    return template._worker.pid


def state_and_parent(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:  # no /proc on this system, or ended since
        return ["", ""]


def gone(pid: int) -> bool:
    """Waits until a process has ended; a zombie has ended only if it is another process's to collect."""

    def ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return state_and_parent(pid)[0] == "Z" and state_and_parent(pid)[1] != str(os.getpid())

    return until(ended, f"the end of process {pid}")


def limit(monkeypatch: pytest.MonkeyPatch, cpu: float, wall: float) -> None:
    """Seconds that a call may take."""
    monkeypatch.setattr(template, "SECONDS_PER_BATCH", cpu)
    monkeypatch.setattr(template, "SECONDS_PER_CONVERSATION", 0)
    monkeypatch.setattr(template, "WALL_SECONDS_PER_SECOND", wall / cpu)


def test_a_worker_has_more_seconds_than_of_its_own_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[float, float]]()

    def ask(request: dict, seconds: float, most: int) -> dict:
        asked.append((request["cpu_seconds"], seconds))
        return {"texts": [""] * len(request["conversations"])}

    monkeypatch.setattr(template._worker, "ask", ask)
    render_chat(CHATML, [HELLO] * 300, add_generation_prompt=True, variables={})
    assert asked == [(each, each * template.WALL_SECONDS_PER_SECOND) for each in (4.0, 3.0)]


@pytest.mark.parametrize(("source", "wall"), [(LOOPS[0], HANG), *((source, 0.2) for source in LOOPS)])
def test_endless_template_is_killed(source: str, wall: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the limit of its CPU time, or of the time that passes."""
    pid = worker_pid()
    limit(monkeypatch, 0.05 if wall == HANG else HANG, wall)
    with pytest.raises(RiyazError, match="does not finish in time"):
        render(source)
    assert gone(pid)
    monkeypatch.undo()
    assert render(CHATML).endswith("assistant\n")


def test_a_busy_machine_does_not_fail_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the time the worker computes, not the time that passes."""
    pid = worker_pid()
    limit(monkeypatch, 0.05, HANG)
    os.kill(pid, signal.SIGSTOP)
    looks = iter(range(20))

    def wake() -> None:
        until(lambda: next(looks, None) is None, "more time than the limit of computing")
        os.kill(pid, signal.SIGCONT)

    waker = threading.Thread(target=wake)
    waker.start()
    assert render(CHATML).endswith("assistant\n") and worker_pid() == pid
    waker.join()


def test_a_worker_that_waits_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = worker_pid()
    limit(monkeypatch, 0.05, 0.2)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RiyazError, match="does not finish in time"):
        render(CHATML, [{"role": "user", "content": "more than a pipe holds " * 10_000}])
    assert gone(pid)


def test_one_worker_serves_all_calls_and_is_replaced_when_it_dies() -> None:
    pid = worker_pid()
    assert worker_pid() == pid
    with pytest.raises(RiyazError):
        render("{{ raise_exception('no') }}")
    assert worker_pid() == pid
    os.kill(pid, signal.SIGKILL)
    assert worker_pid() != pid and gone(pid)


def when_asked(monkeypatch: pytest.MonkeyPatch, send: signal.Signals, to_worker: bool) -> None:
    """Sends a signal to the worker, or to this process, as soon as the worker has its next request."""
    talk = child._talk

    def signalled(process: "subprocess.Popen[bytes]", line: bytes, most: int) -> bytes:
        monkeypatch.setattr(child, "_talk", talk)
        assert process.stdin is not None
        process.stdin.write(line)
        os.kill(process.pid if to_worker else os.getpid(), send)
        return talk(process, b"", most)

    monkeypatch.setattr(child, "_talk", signalled)


def test_a_worker_killed_in_the_middle_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = worker_pid()
    when_asked(monkeypatch, signal.SIGKILL, to_worker=True)
    slow = "{% for i in range(30000) %}{% for j in range(60) %}{% endfor %}{% endfor %}done"
    assert render(slow) == "done"
    assert worker_pid() != pid


def test_a_template_that_kills_every_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_talk", lambda process, line, most: b'{"ready": true}\n' if not line else b"")
    template._worker.stop()
    with pytest.raises(RiyazError, match="crashes the process that renders it"):
        render(CHATML)


def test_ctrl_c_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = worker_pid()
    when_asked(monkeypatch, signal.SIGINT, to_worker=False)
    with pytest.raises(KeyboardInterrupt):
        render("late")
    assert gone(pid)
    assert render(CHATML).endswith("assistant\n")


def test_the_terminals_ctrl_c_does_not_end_the_worker() -> None:
    pid = worker_pid()
    os.kill(pid, signal.SIGINT)  # which it sees before it reads the next request
    assert worker_pid() == pid


def test_threads_get_their_own_answers() -> None:
    answers: dict[int, list[str]] = {}

    def work(number: int) -> None:
        rows = [[{"role": "user", "content": f"{number}.{row}"}] for row in range(300)]
        answers[number] = render_chat("{{ messages[0].content }}", rows, add_generation_prompt=True, variables={})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [f"{number}.{row}" for row in range(300)] for number in range(6)}


def test_a_fork_gets_its_own_worker() -> None:
    script = """
import os, sys
from riyaz.text import template
def text(word):
    return template.render_chat("{{ messages[0].content }}", [[{"role": "user", "content": word}]],
                                add_generation_prompt=True, variables={})
def pid(): return template._worker.pid
assert text("before") == ["before"]
parents = pid()
template._worker._lock.acquire()          # as if another thread were rendering at this moment
child = os.fork()
if child == 0:
    same = text("child") == ["child"] and pid() != parents
    template._worker.stop()
    os._exit(0 if same else 1)
template._worker._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert text("after") == ["after"] and pid() == parents
print(parents)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert gone(int(result.stdout))


@pytest.mark.parametrize("ending", ["pass", "sys.exit(3)", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
def test_no_worker_outlives_its_parent(ending: str) -> None:
    script = f"""
import os, sys
from riyaz.text import template
template.render_chat("x", [[{{"role": "user", "content": "x"}}]], add_generation_prompt=True, variables={{}})
print(template._worker.pid, flush=True)
{ending}
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG)
    assert gone(int(result.stdout))


def test_a_looping_orphan_ends_by_itself() -> None:
    request = {"template": LOOPS[0], "conversations": [HELLO], "tools": [None], "add_generation_prompt": True}
    request |= {"variables": {}, "output_limit": 100, "cpu_seconds": 0.5}
    command = [sys.executable, "-m", "riyaz.text.template_worker"]
    result = subprocess.run(command, input=json.dumps(request).encode() + b"\n", capture_output=True, timeout=HANG)
    assert result.returncode == -signal.SIGXCPU and json.loads(result.stdout) == {"ready": True}


def test_worker_imports_only_the_standard_library_and_jinja2() -> None:
    code = "import sys; old = set(sys.modules); import riyaz.text.template_worker; print(*set(sys.modules) - old)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    packages = {name.split(".")[0] for name in output.split()}
    assert packages - set(sys.stdlib_module_names) == {"riyaz", "jinja2", "markupsafe"}


def test_worker_can_open_no_file_even_outside_the_sandbox() -> None:
    code = "import os; from riyaz.confined import confine; confine(1024); os.open(os.devnull, os.O_RDONLY)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Too many open files" in result.stderr


def test_worker_sees_no_secret_of_the_environment_and_no_module_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit('the working folder was imported')")
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIYAZ_TEST_KEY", "the-secret-word")
    template._worker.stop()
    pid = worker_pid()
    environment = Path(f"/proc/{pid}/environ")
    if environment.exists():
        assert b"PATH=" in environment.read_bytes() and b"the-secret-word" not in environment.read_bytes()


def test_worker_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    template._worker.stop()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RiyazError, match="failed to start"):
        render(CHATML)
    monkeypatch.undo()
    assert render(CHATML).endswith("assistant\n")
