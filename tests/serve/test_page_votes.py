"""Votes that a run learns from: which count, how the run is begun, and what a client cannot choose."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pretend_run
import pytest
import tiny_comparison
from live_server import Running, assert_error, running
from waiting import until

from riyaz.config import MIN_ROWS
from riyaz.data.formats import load
from riyaz.methods import METHODS, abouts, from_votes
from riyaz.serve.opening import Opener
from riyaz.serve.page import starting
from riyaz.serve.page.place import Page
from riyaz.serve.page.runs import Run
from riyaz.serve.page.votes import FILE, both_of, taken_of

SIDES = {"a": {"model": "tiny", "text": "yes"}, "b": {"model": "other", "text": "no"}}
TRAIN = "/page/votes/train"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("voting")
    shutil.copytree(model_folder, folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    opener, page = Opener("fp32"), Page.of(place, "riyaz ui", abouts(), from_votes())
    opener.serve(str(place / "tiny"))
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


@pytest.fixture(autouse=True)
def fake(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page starts a command that trains nothing, and there are no votes yet."""
    monkeypatch.setattr(starting, "_riyaz", lambda: [sys.executable, str(pretend_run.RUN)])
    monkeypatch.setenv("PYTHONPATH", f"{pretend_run.RUN.parents[2] / 'src'}{os.pathsep}{pretend_run.RUN.parent}")
    yield
    for made in starting._started.values():
        made.process.kill()
        made.process.wait()
    starting._started.clear()
    for name in (FILE, "uploads", "runs"):
        path = place / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def votes(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Decided votes on as many prompts, as the page keeps them."""
    vote = {**SIDES, "choice": "a", "chosen": "yes", "rejected": "no", "time": 1}
    return [{"prompt": f"question {number}", **vote, **changes} for number in range(count)]


def write(place: Path, rows: list[dict[str, Any]]) -> None:
    (place / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_only_votes_that_training_takes_count(served: Running, place: Path) -> None:
    for prompt, choice, other in (
        ("p", "a", "no"), ("p", "b", "no"), ("q", "tie", "no"), ("q", "bad", "no"), ("r", "a", "yes"),
        ("r", "a", " yes "), ("s", "a", ""), (" ", "a", "no"),
    ):  # fmt: skip
        sides = {**SIDES, "b": {"model": "other", "text": other}}
        assert served.post("/page/votes", {"prompt": prompt, **sides, "choice": choice}).status_code == 201
    chat = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "t"}]
    for prompt in (chat, [{"role": "assistant", "content": "x"}], [{}], [{"role": 1}], [{"role": "user"}]):
        assert served.post("/page/votes", {"prompt": prompt, **SIDES, "choice": "a"}).status_code == 201
    with open(place / FILE, "a") as file:
        file.write('{"prompt": "cut sh')
    board = served.http.get("/page/votes").json()
    assert board["votes"] == 13
    learning = {"votes": 3, "prompts": 2, "least": MIN_ROWS, "methods": ["dpo", "orpo", "kto"]}
    assert board["training"] == learning
    rows = both_of(place / FILE)[1].rows
    assert [row["prompt"] for row in rows] == ["p", "p", chat]


def test_the_rows_that_count_are_those_that_training_reads(tmp_path: Path) -> None:
    made = [
        *votes(25),
        *votes(3, chosen=None),
        {**votes(1)[0], "chosen": "x" * 2**20},
        {"prompt": {"a": 1}, "choice": "a"},
    ]
    taken = taken_of(made)
    tiny_comparison.write_rows(tmp_path / "votes.jsonl", taken.rows)
    read = load(tmp_path / "votes.jsonl").examples
    assert len(read) == len(taken.rows) == 25 and taken.prompts == len({example.key for example in read})
    assert {(example.answer, example.rejected) for example in read} == {("yes", "no")}


@pytest.mark.parametrize("method", from_votes())
def test_enough_votes_begin_a_run_on_the_base_of_a_model(served: Running, place: Path, method: str) -> None:
    write(place, [*votes(MIN_ROWS), *votes(2, choice="tie", chosen=None, rejected=None)])
    begun = served.post(TRAIN, {"model": "tiny", "method": method})
    assert begun.status_code == 201, begun.text
    (data,) = (place / "uploads").iterdir()
    assert [json.loads(line) for line in data.read_text().splitlines()] == [
        {name: row[name] for name in ("prompt", "chosen", "rejected")} for row in votes(MIN_ROWS)
    ]
    found = begun.json()
    assert data.name.startswith(f"votes-{MIN_ROWS}-") and found["path"].startswith(f"runs/{method}-tiny-")
    words = f"riyaz compare ./uploads/{data.name} --model ./tiny --methods zero_shot,{method} --out {found['path']}"
    assert found["command"] == words
    until(lambda: (run := Run.of(place / found["path"])) and run.running, "it runs")
    again = served.post(TRAIN, {"model": "tiny", "method": method})
    assert "is being written by another riyaz" in assert_error(again, 409)["message"]


def test_too_few_prompts_begin_nothing(served: Running, place: Path) -> None:
    write(place, [*votes(MIN_ROWS - 1), *votes(5), *votes(9, chosen="no")])
    told = assert_error(served.post(TRAIN, {"model": "tiny", "method": "dpo"}), 409)["message"]
    assert told == f"{FILE}: 24 votes on 19 different prompts can be learned from; training needs {MIN_ROWS} prompts"
    assert not (place / "uploads").exists() and not (place / "runs").exists() and not starting._started


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "../tiny"}, 404, "model"), ({"model": "/etc"}, 404, "model"), ({"model": None}, 400, "model"),
        ({"method": "lora"}, 400, "method"), ({"method": "--x"}, 400, "method"), ({"method": None}, 400, "method"),
    ],
)  # fmt: skip
def test_a_client_names_no_path_and_no_other_method(
    served: Running, place: Path, changes: dict[str, Any], status: int, param: str
) -> None:
    write(place, votes(MIN_ROWS))
    assert assert_error(served.post(TRAIN, {"model": "tiny", "method": "dpo", **changes}), status)["param"] == param
    assert not (place / "uploads").exists() and not starting._started


def test_a_client_chooses_neither_the_rows_nor_the_folder(served: Running, place: Path) -> None:
    write(place, votes(MIN_ROWS))
    body = {"model": "tiny", "method": "dpo", "data": "/etc/passwd", "out": "elsewhere", "path": "x"}
    begun = served.post(TRAIN, body)
    assert begun.headers["x-riyaz-ignored"] == "data,out,path" and begun.json()["path"].startswith("runs/dpo-tiny-")


def test_another_origin_and_a_wrong_token_begin_nothing(served: Running, place: Path) -> None:
    write(place, votes(MIN_ROWS))
    body = {"model": "tiny", "method": "dpo"}
    assert_error(served.post(TRAIN, body, headers={"origin": "http://elsewhere.example"}), 403)
    assert_error(served.post(TRAIN, body, headers={"x-riyaz-token": "x"}), 401)
    assert_error(served.http.post(TRAIN, content=json.dumps(body), headers={"content-type": "text/plain"}), 415)
    assert_error(served.http.get(TRAIN), 405)
    assert not starting._started


def test_a_file_that_cannot_be_read_is_one_line(served: Running, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, votes(MIN_ROWS))

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    for answer in (served.http.get("/page/votes"), served.post(TRAIN, {"model": "tiny", "method": "dpo"})):
        assert assert_error(answer, 400)["message"].endswith(f"{FILE}: cannot be read (Permission denied)")
    assert not starting._started


def test_votes_behind_a_link_are_no_votes_and_nothing_is_written_through_one(
    served: Running, place: Path, tmp_path: Path
) -> None:
    write(tmp_path, votes(MIN_ROWS))
    (place / FILE).symlink_to(tmp_path / FILE)
    assert_error(served.post(TRAIN, {"model": "tiny", "method": "dpo"}), 409)
    (place / FILE).unlink()
    write(place, votes(MIN_ROWS))
    (place / "uploads").symlink_to(tmp_path)
    assert "is a link" in assert_error(served.post(TRAIN, {"model": "tiny", "method": "dpo"}), 400)["message"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE] and not starting._started


def test_a_model_elsewhere_is_named_by_the_path_that_the_server_opened(tmp_path: Path, model_folder: Path) -> None:
    opener, page = Opener("fp32"), Page.of(tmp_path, "riyaz ui", abouts(), from_votes())
    opener.serve(str(model_folder))
    write(tmp_path, votes(MIN_ROWS))
    with running(opener, page=page) as found:
        name = next(iter(opener.shelf)).name
        headers = {"x-riyaz-token": page.token}
        begun = found.post(TRAIN, {"model": name, "method": "kto"}, headers=headers).json()
    assert f"--model {model_folder.resolve()} --methods" in begun["command"]
    assert begun["path"].startswith("runs/kto-")


def test_the_methods_that_learn_from_votes_take_pairs() -> None:
    assert from_votes() and all("preferred" in METHODS[name].judged_by for name in from_votes())
    assert all(METHODS[untrained].recipe is None and name == own for own, (untrained, name) in from_votes().items())
