"""Runs on the page: found whoever started them, followed from where the page left off, started, stopped, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_run
import pretend_run
import pytest
from conftest import Finished
from live_server import Running, assert_error, running
from waiting import HANG, until

from riyaz import events
from riyaz.errors import RiyazError
from riyaz.events import EVENTS, Note, Phase
from riyaz.limits.limits_file import recorder
from riyaz.serve import guard
from riyaz.serve.opening import Opener
from riyaz.serve.page import following, starting
from riyaz.serve.page.place import Page
from riyaz.serve.page.runs import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, quick: Finished) -> Path:
    """A finished comparison, a pretraining run, one that was killed while it wrote, and one of a newer version."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(quick.out, folder / "workshop")
    fake_run.write(folder / "inner/learning")
    with events.recorded(
        folder / "inner/learning" / EVENTS, "riyaz pretrain text --out learning", events.quiet
    ) as listen:
        listen(Note("tokenizer: bpe"))
    half = folder / "half"
    half.mkdir()
    (half / "settings.json").write_text('{"settings": {"seed"')
    (half / EVENTS).write_text(
        '{"event": "begun", "version": 1, "time": 5.0, "command": "riyaz compare x", "process": 1}\n{"ev'
    )
    newer = folder / "newer"
    shutil.copytree(quick.out, newer, ignore=shutil.ignore_patterns("arms"))
    (newer / "compare.json").write_text(json.dumps({**quick.document, "schema": 2}))
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    page = Page.of(place)
    with running(Opener(), page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page starts a command that trains nothing."""
    monkeypatch.setattr(starting, "_riyaz", lambda: [sys.executable, str(pretend_run.RUN)])
    monkeypatch.setenv("PYTHONPATH", f"{pretend_run.RUN.parents[2] / 'src'}{os.pathsep}{pretend_run.RUN.parent}")


def until_running(folder: Path) -> None:
    until(lambda: (run := Run.of(folder)) and run.running, f"{folder.name} runs")


def until_is(served: Running, path: str, state: str) -> None:
    until(lambda: one(served, path)["state"] == state, f"{path} is {state}")


def one(served: Running, path: str) -> dict[str, Any]:
    answer = served.http.get("/page/run", params={"path": path})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def messages(served: Running, path: str, after: str = "", most: int | None = None) -> list[dict[str, Any]]:
    """The messages of a run's stream, each with its id, to the end or at most so many."""
    found, headers = [], {"last-event-id": after} if after else {}
    with served.http.stream("GET", "/page/events", params={"path": path}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        latest = ""
        for line in response.iter_lines():
            if line.startswith("id: "):
                latest = line[4:]
            elif line.startswith("data: {"):
                found.append({**json.loads(line[6:]), "id": latest})
                if len(found) == most:
                    break
    return found


def test_every_run_is_found_with_what_it_is_at(served: Running, quick: Finished) -> None:
    found = {run["path"]: run for run in served.http.get("/page/runs").json()["runs"]}
    assert {path: (run["kind"], run["state"]) for path, run in found.items()} == {
        "workshop": ("compare", "done"), "inner/learning": ("pretrain", "done"),
        "half": ("compare", "cut"), "newer": ("compare", "unreadable"),
    }  # fmt: skip
    workshop = found["workshop"]
    assert workshop["pick"] == quick.document["pick"] and workshop["score"] == quick.arm(workshop["pick"])["score"]
    assert workshop["command"].split()[0] == "riyaz" and workshop["started"] > 1e9
    assert "made by a newer riyaz (format" in found["newer"]["problem"]


def test_a_run_says_what_its_files_say(served: Running, quick: Finished) -> None:
    found = one(served, "workshop")
    assert found["document"] == quick.document and found["plan"]["arms"] and found["settings"]["settings"]["seed"] == 3
    rows = {arm["method"]: arm["row"]["score"] for arm in found["arms"] if "row" in arm}
    assert rows == {arm["method"]: arm["score"] for arm in quick.document["arms"]}, "the events say the same"
    assert found["estimate"]["seconds"] > 0 and found["problems"] == []
    commands = {each["title"]: each["command"] for each in found["commands"]}
    assert commands["serve"] == "riyaz serve workshop" and commands["chat"].startswith("riyaz chat workshop/")
    trained = one(served, "inner/learning")
    assert trained["status"] == "done" and trained["document"]["model"] and trained["notes"] == ["tokenizer: bpe"]


def test_a_run_half_written_or_of_a_newer_version_is_shown_in_one_line(served: Running) -> None:
    half = one(served, "half")
    assert half["state"] == "cut" and half["document"] is None
    (problem,) = half["problems"]
    assert problem.isprintable() and "settings.json" in problem and "is damaged" in problem
    assert half["commands"] == [{"title": "go on", "command": "riyaz compare x"}]
    newer = one(served, "newer")
    assert newer["state"] == "unreadable" and newer["document"] is None and len(newer["problems"]) == 1


def test_a_report_opens_with_its_ticket_only_and_without_the_pages_origin(served: Running, place: Path) -> None:
    link = one(served, "workshop")["report"]
    plain = {"x-riyaz-token": ""}
    answer = served.http.get(link, headers=plain)
    assert answer.status_code == 200 and "<!doctype html>" in answer.text[:100].lower()
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    ticket = link.rpartition("=")[2]
    many = "&a=" * (guard.FIELDS - 1)  # a stranger's query of thousands of fields took the others' time
    assert served.http.get(link + many[3:], headers=plain).status_code == 200
    other = link.replace("workshop", "newer")
    for wrong in (link[:-1], other, link + many, f"/page/run?path=workshop&ticket={ticket}"):
        assert_error(served.http.get(wrong, headers=plain), 401)
    assert_error(served.http.get("/page/report", params={"path": "half"}), 404)


def test_rows_stand_side_by_side(served: Running, quick: Finished) -> None:
    params = {"path": "workshop", "arms": "zero_shot,nearest"}
    found = served.http.get("/page/rows", params=params).json()
    assert {each["name"] for each in found["methods"]} == {"zero_shot", "nearest"} and found["total"] == 18
    some = served.http.get("/page/rows", params={**params, "only": "disagreements"}).json()
    assert 0 < some["total"] < 18 and all(len(row["said"]) == 2 for row in some["rows"])
    for row in some["rows"]:
        assert len({said[1] >= found["right"] for said in row["said"]}) == 2
    assert served.http.get("/page/rows", params={**params, "offset": "17"}).json()["rows"] == found["rows"][17:]
    assert_error(served.http.get("/page/rows", params={"path": "half"}), 409)
    assert_error(served.http.get("/page/rows", params={"path": "inner/learning"}), 400)


def test_the_difference_of_two_runs(served: Running, place: Path, quick: Finished) -> None:
    other = place / "other"
    other.mkdir()
    settings = json.loads((quick.out / "settings.json").read_text())
    settings["settings"]["seed"] = 4
    (other / "settings.json").write_text(json.dumps(settings))
    found = served.http.get("/page/difference", params={"a": "workshop", "b": "other"}).json()
    shutil.rmtree(other)
    assert found["differences"] == [{"name": "settings.seed", "a": 3, "b": 4}] and found["same"] > 5


@pytest.mark.parametrize("route", ["run", "events", "rows", "report", "difference"])
@pytest.mark.parametrize("path", ["", ".", "..", "absent", "../workshop", "workshop/arms/lora/kept"])
def test_what_is_no_run_is_one_line(served: Running, route: str, path: str) -> None:
    assert_error(served.http.get(f"/page/{route}", params={"path": path, "a": path, "b": path}), 404)


def test_events_are_replayed_and_go_on_after_the_last_one(served: Running, place: Path) -> None:
    every = messages(served, "workshop")
    assert every[0]["event"] == "begun" and every[-1] == {"event": "end", "state": "done", "id": every[-2]["id"]}
    assert [each["event"] for each in every if each.get("file") == "events"][-1] == "ended"
    rows = {each["arm"]["method"]: each["arm"] for each in every if each["event"] == "arm"}
    assert {name: row["score"] for name, row in rows.items()} == {
        arm["method"]: arm["score"] for arm in one(served, "workshop")["document"]["arms"]
    }
    assert {each["arm"] for each in every[:-1] if each["event"] != "arm"} >= {"lora", "zero_shot"}
    half = len(every) // 2
    assert messages(served, "workshop", every[half]["id"]) == every[half + 1 :]
    for wrong in ("x", "events=1", "events=9.9", "events=" + "9" * 90 + ".1"):
        assert len(messages(served, "workshop", wrong)) == len(every), "all of it, where the id is none"
    trained = messages(served, "inner/learning")
    assert {each.get("file") for each in trained} == {"events", "metrics", "samples", None}
    assert len([each for each in trained if each.get("file") == "metrics"]) == len(fake_run.metrics())


def test_a_file_that_is_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"1\n2\n3")
    tail = following.Tail(path)
    assert list(tail.new()) == [b"1\n", b"2\n"] and tail.offset == 4, "whole lines"
    path.write_bytes(b"1\n2\n3\n")
    assert list(tail.new()) == [b"3\n"]
    (tmp_path / "new").write_bytes(b"1\n")
    os.replace(tmp_path / "new", path)
    assert list(tail.new()) == [b"1\n"] and list(tail.new()) == []
    assert list(following.Tail(tmp_path / "absent").new()) == []


def test_a_run_of_the_command_line_appears_and_is_followed_and_stopped(
    served: Running, place: Path, fake: None
) -> None:
    """A reload in mid-run loses nothing; the page stops what it has not started."""
    out = place / "by-hand"
    process = subprocess.Popen([*starting._riyaz(), "compare", "x", "--out", str(out)])
    until(lambda: (out / EVENTS).exists() and len(pretend_run.lines(out)) > 5, "it has done some steps")
    assert one(served, "by-hand")["state"] == "running"
    first = messages(served, "by-hand", most=4)
    later = messages(served, "by-hand", first[-1]["id"], most=4)
    told = [each["done"] for each in [*first, *later] if each["event"] == "progress"]
    assert told == list(range(1, len(told) + 1)) and len(told) == 6, "no step twice, none left out"
    ended: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: ended.extend(messages(served, "by-hand", later[-1]["id"])))
    reader.start()
    assert served.post("/page/stop", {"path": "by-hand"}).status_code == 202
    reader.join(HANG)
    assert ended[-1] == {"event": "end", "state": "stopped", "id": ended[-2]["id"]}
    assert process.wait(HANG) != 0 and one(served, "by-hand")["state"] == "stopped"
    assert "does not run" in assert_error(served.post("/page/stop", {"path": "by-hand"}), 409)["message"]
    shutil.rmtree(out)


def test_a_killed_run_is_cut_and_goes_on(served: Running, place: Path, fake: None) -> None:
    body = {"verb": "compare", "data": "workshop", "budget": "5m", "methods": ["lora"], "out": "runs/one"}
    begun = served.post("/page/start", body)
    assert begun.status_code == 201, begun.text
    command = "riyaz compare ./workshop --budget 5m --methods lora --out runs/one"
    assert begun.json()["command"] == command and begun.json()["path"] == "runs/one"
    out = place / "runs/one"
    until_running(out)
    os.kill(begun.json()["pid"], signal.SIGKILL)
    until_is(served, "runs/one", "cut")
    again = served.post("/page/start", {"verb": "resume", "path": "runs/one"}).json()
    assert again["command"] == command.replace("runs/one", "./runs/one")
    until_running(out)
    served.post("/page/stop", {"path": "runs/one"})
    until_is(served, "runs/one", "stopped")
    assert [line["event"] for line in pretend_run.lines(out)].count("begun") == 2


def test_two_pages_do_not_write_to_one_run(served: Running, place: Path, fake: None) -> None:
    body = {"verb": "compare", "data": "workshop", "out": "runs/two"}
    assert served.post("/page/start", body).status_code == 201
    assert "is being written by another riyaz" in assert_error(served.post("/page/start", body), 409)["message"]
    until_running(place / "runs/two")
    together = list(
        ThreadPoolExecutor(4).map(lambda _: served.post("/page/start", {**body, "out": "runs/four"}), "1234")
    )
    assert sorted(answer.status_code for answer in together) == [201, 409, 409, 409]
    until_running(place / "runs/four")
    served.post("/page/stop", {"path": "runs/four"})
    starting._started.clear()  # as in another server
    assert_error(served.post("/page/start", body), 409)
    served.post("/page/stop", {"path": "runs/two"})
    until_is(served, "runs/two", "stopped")


def test_limits_that_are_measured_are_a_run_before_their_file_is_there(served: Running, place: Path) -> None:
    out = place / "runs/limits"
    with recorder(out, "riyaz limits ./tiny --out elsewhere") as record:
        record(Phase("limits", "bias, about 3 s"))
        found = one(served, "runs/limits")
        assert (found["kind"], found["state"], found["document"]) == ("limits", "running", None)
        begun, phase = messages(served, "runs/limits", most=2)
        assert begun["command"].startswith("riyaz limits") and phase["detail"] == "bias, about 3 s"
        with pytest.raises(RiyazError, match="another riyaz is working"), recorder(out, "riyaz limits ./tiny"):
            pass
    found = one(served, "runs/limits")  # as after a crash between the end and the file
    assert found["state"] == "done" and found["commands"] == []
    shutil.rmtree(out)
    out.mkdir()
    (out / EVENTS).write_text('{"event": "begun", "version": 1, "command": "riyaz chat x", "process": 1}\n')
    assert Run.of(out) is None
    with recorder(place / "workshop", "riyaz limits ./tiny") as record:
        assert record is events.quiet, "the events of a comparison are its own"
    shutil.rmtree(out)


def test_a_command_that_refuses_says_why(served: Running, place: Path, fake: None) -> None:
    begun = served.post("/page/start", {"verb": "compare", "data": "half", "out": "runs/refuse"}).json()
    until_is(served, "runs/refuse", "failed")
    found = one(served, "runs/refuse")
    assert found["problem"] == "rows.jsonl:1: has no answer; name the column" and found["command"] == begun["command"]
    assert (place / starting.LOGS).is_dir() and not (place / "runs/refuse").exists()


def test_a_run_that_is_begun_again_runs_from_the_start_and_says_why_it_is_refused(
    served: Running, place: Path, tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a dry run the folder holds a plan; the command reads its data before it writes there."""
    pretend_run.write_json(place / "runs/planned/settings.json", {})
    assert one(served, "runs/planned")["state"] == "planned"
    go = tmp_path / "go"
    monkeypatch.setenv("PAGE_RUNS_GO", str(go))
    for data, end in (("workshop", "stopped"), ("refused-later", "failed")):
        (place / data).mkdir(exist_ok=True)
        body = {"verb": "compare", "data": data, "out": "runs/planned"}
        begun = served.post("/page/start", body).json()
        found = one(served, "runs/planned")
        assert (found["state"], found["command"]) == ("running", begun["command"])
        if end == "stopped":
            with ThreadPoolExecutor(1) as pool:
                told = pool.submit(messages, served, "runs/planned", most=1)
                until(lambda: served.server.server_state.tasks, "the stream is asked for")
                go.touch()
                (first,) = told.result()
            assert first["event"] == "begun", "the stream waits for it"
            until_running(place / "runs/planned")
            assert served.post("/page/stop", {"path": "runs/planned"}).status_code == 202
        go.touch()
        until_is(served, "runs/planned", end)
        go.unlink()
    assert one(served, "runs/planned")["problem"] == "rows.jsonl:1: has no answer; name the column"
    (place / "refused-later").rmdir()


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "verb"), ({"verb": "rm"}, 400, "verb"), ({"verb": "compare"}, 400, "data"),
        ({"verb": "compare", "data": "../x"}, 404, "data"), ({"verb": "compare", "data": "/etc"}, 404, "data"),
        ({"verb": "compare", "data": "--out=x"}, 404, "data"),
        ({"verb": "compare", "data": "workshop", "model": "--x"}, 404, "model"),
        ({"verb": "compare", "data": "workshop", "model": "../../x"}, 404, "model"),
        ({"verb": "compare", "data": "workshop", "documents": "/etc"}, 404, "documents"),
        ({"verb": "compare", "data": "workshop", "budget": "soon"}, 400, "budget"),
        ({"verb": "compare", "data": "workshop", "methods": ["--x"]}, 400, "methods"),
        ({"verb": "compare", "data": "workshop", "out": "../x"}, 400, "out"),
        ({"verb": "compare", "data": "workshop", "out": "/tmp/x"}, 400, "out"),
        ({"verb": "compare", "data": "workshop", "out": "--x"}, 400, "out"),
        ({"verb": "pretrain", "texts": []}, 400, "texts"), ({"verb": "limits"}, 400, "target"),
        ({"verb": "resume", "path": ".."}, 404, "path"), ({"verb": "resume", "path": "newer/../.."}, 404, "path"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_is_one_line(
    served: Running, place: Path, fake: None, body: dict[str, Any], status: int, param: str
) -> None:
    before = {path.name for path in place.iterdir()}
    assert str(assert_error(served.post("/page/start", body), status)["param"]).startswith(param)
    assert {path.name for path in place.iterdir()} == before


def test_a_run_behind_a_link_is_neither_found_nor_written_to(
    served: Running, place: Path, tmp_path: Path, fake: None
) -> None:
    (place / "away").symlink_to(tmp_path)
    pretend_run.write_json(tmp_path / "settings.json", {})
    assert "away" not in {run["path"] for run in served.http.get("/page/runs").json()["runs"]}
    assert_error(served.http.get("/page/run", params={"path": "away"}), 404)
    assert_error(served.post("/page/start", {"verb": "compare", "data": "workshop", "out": "away/x"}), 404)
    (place / "away").unlink()


@pytest.mark.parametrize("given", ["--out elsewhere", "--out=elsewhere", "--out ../elsewhere", ""])
def test_a_run_goes_on_in_its_own_folder_whatever_its_command_says(
    served: Running, place: Path, fake: None, given: str
) -> None:
    """It was begun in another folder, or came from elsewhere."""
    pretend_run.write_json(place / "moved/settings.json", {})
    begun = {"event": "begun", "version": 1, "command": f"riyaz compare ./workshop {given}", "process": 2**22 + 1}
    (place / "moved" / EVENTS).write_text(json.dumps(begun) + "\n")
    again = served.post("/page/start", {"verb": "resume", "path": "moved"})
    assert again.json()["command"] == "riyaz compare ./workshop --out ./moved", again.text
    until_running(place / "moved")
    served.post("/page/stop", {"path": "moved"})
    until_is(served, "moved", "stopped")
    shutil.rmtree(place / "moved")


def test_a_forged_process_is_not_told_to_end(served: Running, place: Path) -> None:
    """A run that came from elsewhere may name any process; only one that holds the folder's lock is told."""
    forged = place / "forged"
    pretend_run.write_json(forged / "settings.json", {})
    begun = {"event": "begun", "version": 1, "command": "riyaz compare x", "process": os.getpid()}
    (forged / EVENTS).write_text(json.dumps(begun) + "\n")
    (forged / ".lock").touch()
    assert one(served, "forged")["state"] == "cut"
    assert_error(served.post("/page/stop", {"path": "forged"}), 409)
    for begun["command"] in (
        "rm -r x",
        "riyaz compare x --unsafe-code",
        "riyaz compare x --unsafe_code=true",
        "riyaz compare x --places 'touch y'",
        "riyaz compare x --places=here",
        "riyaz compare x --ray 10.0.0.1:6379",
        "riyaz compare /etc/passwd",
        "riyaz compare x --documents ../secrets",
        "riyaz compare x --model=a,/etc",
    ):
        (forged / EVENTS).write_text(json.dumps(begun) + "\n")
        assert_error(served.post("/page/start", {"verb": "resume", "path": "forged"}), 409)
    shutil.rmtree(forged)
