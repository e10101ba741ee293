"""GET /page/learned: the recorded lines of a run, those of the program as its file has them, and what is refused."""

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import fake_run
import pytest
from live_server import Running, assert_error, running

from riyaz import train
from riyaz.results import LEARNED
from riyaz.serve.opening import Opener
from riyaz.serve.page import learned
from riyaz.serve.page.place import Page


def line(step: int) -> dict:
    words = [{"text": " fox", "p": 0.5}, {"text": " dog", "p": 0.25}]
    losses = [{"text": "The", "nats": None}, {"text": " river", "nats": 3.25}]
    gradients = None if step == 0 else [0.5, 1.5, 0.25]
    return {"step": step, "text": losses, "sentence": "The quick", "lens": [words] * 3, "gradients": gradients}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    for name in ("run", "older", "damaged", "large", "linked"):
        fake_run.write(folder / name)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / LEARNED
    elsewhere.write_text(json.dumps(line(0)) + "\n")
    (folder / "linked" / LEARNED).symlink_to(elsewhere)
    (folder / "run" / LEARNED).write_text("".join(json.dumps(line(step)) + "\n" for step in (0, 2, 4)))
    for arm, steps in {"lora": (0, 4, 6), "full": (0, 8)}.items():
        kept = folder / "compared" / "arms" / arm / "kept"
        kept.mkdir(parents=True)
        (kept / LEARNED).write_text("".join(json.dumps(line(step) | {"answer": 1}) + "\n" for step in steps))
    (folder / "compared" / "arms" / "zero_shot" / "kept").mkdir(parents=True)
    (folder / "compared" / "settings.json").write_text("{}")
    (folder / "compared" / "arms" / "linked").symlink_to(elsewhere.parent)
    (folder / "damaged" / LEARNED).write_text(json.dumps(line(0) | {"lens": [["fox"]]}) + "\n")
    (folder / "large" / LEARNED).write_text(json.dumps(line(0)) + "\n" + " " * learned.MOST)
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    page = Page.of(place)
    with running(Opener(), page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def get(served: Running, **query: str) -> dict:
    return served.http.get("/page/learned", params=query).json()


def test_a_sample_of_the_package_has_recorded_lines(served: Running) -> None:
    lines = get(served, path="sample:animals")["lines"]
    assert [line["step"] for line in lines] == [*range(0, 301, 30)]
    first, last = ([each["nats"] for each in line["text"][1:]] for line in (lines[0], lines[-1]))
    assert sum(last) < sum(first) / 2


def test_lines_are_those_of_the_file_from_a_step_on(served: Running) -> None:
    assert get(served, path="run")["lines"] == [line(step) for step in (0, 2, 4)]
    assert get(served, path="run", after="2")["lines"] == [line(4)]
    assert get(served, path="run", after="4")["lines"] == []
    assert get(served, path="older")["lines"] == []  # a run from before there were such lines


def test_arms_of_a_comparison_have_lines_of_their_own(served: Running) -> None:
    run = served.http.get("/page/run", params={"path": "compared"}).json()
    assert run["learned"] == ["full", "lora"]
    assert get(served, path="compared", arm="lora")["lines"] == [line(step) | {"answer": 1} for step in (0, 4, 6)]
    assert [each["step"] for each in get(served, path="compared", arm="full", after="0")["lines"]] == [8]
    assert get(served, path="compared", arm="zero_shot")["lines"] == get(served, path="compared")["lines"] == []


def test_the_program_is_the_file_that_trains(served: Running) -> None:
    shown = {each["part"]: each for each in get(served, path="run")["program"]}
    text = Path(train.__file__).read_text(encoding="utf-8").splitlines()
    assert list(shown) == ["forward", "loss", "backward", "step"]
    for each in shown.values():
        assert text[each["line"] - 1].strip() == each["text"]
    # the last three stand in the loop of `train`, in this order; the first one in what the loss calls
    own, first = inspect.getsourcelines(train.train)
    lines = [shown[part]["line"] for part in ("loss", "backward", "step")]
    assert first < lines[0] < lines[1] < lines[2] < first + len(own)
    calls = [
        ast.unparse(node.func) for node in ast.walk(ast.parse(shown["step"]["text"])) if isinstance(node, ast.Call)
    ]
    assert calls[0] == "masters.step"


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [({"path": "damaged"}, 400, "learned.jsonl"), ({"path": "large"}, 400, "bytes"), ({"path": "none"}, 404, "path"),
     ({"path": "linked"}, 404, "path"), ({"path": "run", "after": "x"}, 400, "step"),
     ({"path": "../run"}, 404, "path"), ({"path": "compared", "arm": "../../run"}, 404, "arm"),
     ({"path": "compared", "arm": "x" * 300}, 404, "arm"),
     ({"path": "compared", "arm": ".."}, 404, "arm")],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(served: Running, query: dict, status: int, says: str) -> None:
    error = assert_error(served.http.get("/page/learned", params=query), status)
    assert says in json.dumps(error) and "Traceback" not in json.dumps(error)
