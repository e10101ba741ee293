"""The rule of the clock sees every way to read a clock, sleep or give up early, and its list only shrinks."""

import ast
import json
from pathlib import Path

import clocks
import pytest

# A line that the rule refuses -> what it says.
REFUSED = {
    "import time\nx = time.monotonic()": "reads a clock: time.monotonic",
    "import time\nx = time.time_ns()": "reads a clock: time.time_ns",
    "import time as t\nx = t.perf_counter()": "reads a clock: t.perf_counter",
    "from time import process_time as used\nx = used()": "reads a clock: used",
    "from time import *": "imports every clock",
    "import time\nnow = time.thread_time": "reads a clock: time.thread_time",
    "import time\nrest = time.sleep": "reads a clock: time.sleep",
    "x = running.time.monotonic()": "reads a clock: running.time.monotonic",
    "from timeit import timeit\ntimeit(f)": "reads a clock: timeit",
    "import time\ntime.sleep(0.1)": "sleeps: time.sleep(0.1)",
    "import time\ntime.sleep(0)": "sleeps: time.sleep(0)",
    "from time import sleep as rest\nrest(seconds)": "sleeps: rest(seconds)",
    "import asyncio\nawait asyncio.sleep(0.05)": "sleeps: asyncio.sleep(0.05)",
    "from asyncio import sleep\nawait sleep(1)": "sleeps: sleep(1)",
    "page.wait_for_timeout(200)": "sleeps: page.wait_for_timeout(200)",
    "threading.Event().wait(0.5)": "a limit below 30 s: threading.Event().wait(0.5)",
    "import threading\nthreading.Timer(0.3, f)": "a limit below 30 s: threading.Timer(0.3, f)",
    "thread.join(10)": "a limit below 30 s: thread.join(10)",
    "LIMIT = 5\nthread.join(2 * LIMIT)": "a limit below 30 s: thread.join(2 * LIMIT)",
    "future.result(3)": "a limit below 30 s: future.result(3)",
    "answers[0].result(3)": "a limit below 30 s: answers[0].result(3)",
    "from concurrent.futures import wait\nwait(asked, 20)": "a limit below 30 s: wait(asked, 20)",
    "lines.get(timeout=1)": "a limit below 30 s: lines.get(timeout=1)",
    "lines.get(True, 1)": "a limit below 30 s: lines.get(True, 1)",
    "import subprocess\nsubprocess.run(command, timeout=29)": "a limit below 30 s",
    "process.communicate(None, 10)": "a limit below 30 s",
    "import socket\nsocket.create_connection(address, 5)": "a limit below 30 s",
    "client.settimeout(0.1)": "a limit below 30 s: client.settimeout(0.1)",
    "settled(server, deadline=10)": "a limit below 30 s: settled(server, deadline=10)",
    "def settled(server, timeout=5): ...": "a limit below 30 s: settled(timeout=5)",
    "def settled(server, *, timeout: float = 5): ...": "a limit below 30 s: settled(timeout=5)",
    "class Handler:\n    timeout = 20": "a limit below 30 s: timeout = 20",
    "server.timeout = 0.1": "a limit below 30 s: server.timeout = 0.1",
    "SECONDS = 1000\nexpect(curve).to_be_visible(timeout=20 * SECONDS)": "a limit below 30 s",
    "page.set_default_timeout(20_000)": "a limit below 30 s",
    "import asyncio\nasyncio.wait_for(answer, 5)": "a limit below 30 s",
    "from hypothesis import settings\n@settings(deadline=500)\ndef f(): ...": "a limit of seconds for one example",
    "import httpx\nhttpx.get(url)": "httpx.get gives up after 5 s",
    "from httpx import Client\nClient(base_url=url)": "httpx.Client gives up after 5 s",
    "import httpx\nhttpx.get(url, timeout=httpx.Timeout(5))": "a limit below 30 s: httpx.Timeout(5)",
}
LEFT_ALONE = [
    "text = ''.join(lines) + ', '.join(map(str, rows)) + os.path.join(folder, name)",
    "thread.join()\nevent.wait()\nfuture.result()\nqueue.get()",
    "thread.join(HANG)\nevent.wait(HANG)\nfuture.result(timeout=HANG)",
    "thread.join(60)\nsubprocess.run(command, timeout=120)\nexpect(curve).to_be_visible(timeout=60_000)",
    "import httpx\nhttpx.get(url, timeout=60)\nhttpx.post(url, **options)",
    "import asyncio\nawait asyncio.sleep(0)",
    "assert future.result(0) == 3\nqueue.get(True, None)",
    "from hypothesis import settings\n@settings(deadline=None)\ndef f(): ...",
    "config = ServeConfig(request_timeout=0.2, queue_timeout=0.3)",
    "monkeypatch.setattr(running.time, 'monotonic', lambda: 5.0)",
    "monkeypatch.setattr(endpoint, 'TIMEOUT', 0.4)",
    "program = 'import time; time.sleep(600)'",
    "def sleep(seconds): ...\nsleep(3)\nmade.sleep()\n",
    "def result(number): ...\nresult(3)",
    "known.get('a', 5)\nseconds = {'time': 3}['time']\nimport datetime\ndatetime.time(3)",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_use_is_seen_once(text: str) -> None:
    found = [what for _, what in clocks.uses_of(ast.parse(text))]
    assert len(found) == 1 and found[0].startswith(REFUSED[text]), found


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_waits_for_ever_or_not_at_all_is_left_alone(text: str) -> None:
    assert list(clocks.uses_of(ast.parse(text))) == []


def repository(folder: Path, allowed: dict[str, int] | None, **counts: int) -> Path:
    """A repository with a file of tests for each name, which reads the clock so many times, and a list."""
    for name, count in counts.items():
        path = folder / "tests" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import time\n" + "time.sleep(1)\n" * count)
    if allowed is not None:
        (folder / "tests/house").mkdir(parents=True, exist_ok=True)
        (folder / clocks.LIST).write_text(json.dumps({f"tests/{name}.py": count for name, count in allowed.items()}))
    return folder


def test_a_list_that_is_true_is_green(tmp_path: Path) -> None:
    assert clocks.clock_uses(repository(tmp_path, {"a": 2}, a=2, b=0)) == []


def test_more_fewer_and_gone_are_red(tmp_path: Path) -> None:
    root = repository(tmp_path, {"more": 1, "fewer": 3, "gone": 1}, more=2, fewer=2, new=1)
    assert clocks.clock_uses(root) == [
        "tests/fewer.py: 2 uses of a clock, 3 in tests/house/clocks.json; run `python tests/house/clocks.py --write`",
        "tests/gone.py: stands in tests/house/clocks.json and is gone; run `python tests/house/clocks.py --write`",
        "tests/more.py: 2 uses of a clock, 1 allowed; see tests/helpers/waiting.py",
        "tests/more.py:2 sleeps: time.sleep(1)",
        "tests/more.py:3 sleeps: time.sleep(1)",
        "tests/new.py: 1 uses of a clock, 0 allowed; see tests/helpers/waiting.py",
        "tests/new.py:2 sleeps: time.sleep(1)",
    ]


def test_helpers_and_the_pages_tests_are_read_and_the_one_place_that_sleeps_is_not(tmp_path: Path) -> None:
    root = repository(tmp_path, None, **{"helpers/other": 1, "helpers/waiting": 3, "../page/tests/visits": 1})
    (root / "benchmarks").mkdir()
    (root / "benchmarks/speed.py").write_text("import time\ntime.perf_counter()\n")
    assert clocks.uses(root).keys() == {"tests/helpers/other.py", "page/tests/visits.py"}


def test_writing_lowers_the_list_and_raises_nothing(tmp_path: Path) -> None:
    root = repository(tmp_path, {"more": 1, "fewer": 3, "none": 2, "gone": 1}, more=2, fewer=2, none=0, new=1)
    assert [line.partition(":")[0] for line in clocks.write(root)] == ["tests/more.py", "tests/new.py"]
    assert clocks.allowances(root) == {"tests/fewer.py": 2, "tests/more.py": 1}
    assert {line.partition(":")[0] for line in clocks.clock_uses(root)} == {"tests/more.py", "tests/new.py"}


def test_a_first_list_holds_what_is_there(tmp_path: Path) -> None:
    root = repository(tmp_path, None, a=2)
    (root / "tests/house").mkdir()
    assert clocks.write(root) == [] and clocks.allowances(root) == {"tests/a.py": 2}


def test_the_command_says_what_is_there_and_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = repository(tmp_path, {"a": 2}, a=1, b=1)
    assert clocks.main([], root) == 0
    assert capsys.readouterr().out == "tests/a.py:2 sleeps: time.sleep(1)\ntests/b.py:2 sleeps: time.sleep(1)\n"
    assert clocks.main(["--write"], root) == 1
    assert capsys.readouterr().out == (
        "tests/b.py: 1 uses of a clock, 0 allowed; not written; see tests/helpers/waiting.py\n"
        "tests/house/clocks.json: 1 uses\n"
    )
    (root / "tests/b.py").unlink()
    assert clocks.main(["--write"], root) == 0 and clocks.clock_uses(root) == []
