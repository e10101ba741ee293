"""What comes with the package for a first visit: small, without paths of a machine, read by the page's routes alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import Running, assert_error, running

import riyaz
from riyaz.cli.ui import _filled
from riyaz.results import (
    METRICS,
    PREDICTIONS,
    Answer,
    Comparison,
    Limits,
    PretrainRun,
    Samples,
    StepMetrics,
    TernarizeRun,
)
from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page
from riyaz.sources import SAMPLES, open_source

MOST = 1_000_000  # bytes of all files
PATH = re.compile(r"(?<![\w./-])(?:/(?:tmp|root|home|work|Users|usr|var|opt|mnt|srv)/|[A-Z]:\\|~/)")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def served(empty: Path) -> Iterator[Running]:
    """`riyaz ui` of an empty folder, where no model was pulled."""
    opener = Opener(most=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIYAZ_HOME", str(empty / "home"))
        notes = _filled(opener, (), empty)
    assert "two tiny sample models answer" in notes[0] and len(notes) == 1
    page = Page.of(empty)
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def files() -> list[Path]:
    return [path for path in SAMPLES.rglob("*") if path.is_file()]


def get(served: Running, route: str, **query: str) -> Any:
    answer = served.http.get(route, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_they_are_small_and_lie_in_the_package() -> None:
    assert Path(riyaz.__file__).parent in SAMPLES.parents
    assert 100_000 < sum(path.stat().st_size for path in files()) <= MOST


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SAMPLES)))
def test_they_name_no_path_of_a_machine(path: Path) -> None:
    content = path.read_bytes()
    if path.suffix in (".gguf", ".safetensors"):  # weights may have any bytes: only what is surely a path counts
        assert not re.search(rb"/(?:tmp|root|home|work|Users)/", content)
        return
    assert PATH.search(content.decode("utf-8")) is None
    if path.suffix == ".json":
        assert not [text for text in strings(json.loads(content)) if text.startswith("/") and len(text) > 1]


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON document."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def test_a_path_of_a_machine_would_be_found() -> None:
    assert PATH.search('"source": "/home/me/models"') and PATH.search("in /tmp/x/y") and not PATH.search("a/tmp/b")


def test_the_present_readers_open_every_file() -> None:
    comparison = Comparison.read(SAMPLES / "quickstart/compare.json")
    assert comparison.pick and len(comparison.arms) == 4
    assert all(arm.status == "ok" for arm in comparison.arms)
    for arm in comparison.arms:
        assert len(list(Answer.read(SAMPLES / "quickstart/arms" / arm.name / "kept" / PREDICTIONS))) == arm.n_test
    run = PretrainRun.read(SAMPLES / "animals/run.json")
    assert run.status == "done" and run.result is not None
    assert len(list(StepMetrics.read(SAMPLES / "animals" / METRICS))) == 300
    assert len(list(Samples.read(SAMPLES / "animals/samples.jsonl"))) > 5
    assert TernarizeRun.read(SAMPLES / "animals-ternary/ternarize.json").status == "done"
    assert len(Limits.read(SAMPLES / "smollm2-limits/limits.json").suites) >= 3
    for name in ("sample-animals", "sample-animals-ternary"):
        assert open_source(name).path.is_relative_to(SAMPLES)


def test_every_screen_has_something_to_show_in_an_empty_folder(served: Running, empty: Path) -> None:
    before = sorted(empty.rglob("*"))
    listing = get(served, "/page/runs")
    assert listing["runs"] == []
    samples = {entry["path"]: entry for entry in listing["samples"]}
    kinds = {"compare", "pretrain", "ternarize", "limits"}
    assert {entry["kind"] for entry in samples.values()} == kinds and len(samples) == len(kinds)
    assert all(entry["state"] == "done" and entry["sample"] for entry in samples.values())
    for path, entry in samples.items():
        run = get(served, "/page/run", path=path)
        assert run["document"] and run["sample"] and run["commands"] == [], entry
    rows = get(served, "/page/rows", path="sample:quickstart", only="disagreements")
    assert rows["total"] > 0 and len(rows["methods"]) == 4
    measured = get(served, "/page/limits", path="sample:smollm2-limits")["limits"]["sample:smollm2-limits"]
    assert sum(len(part["figures"]) for suite in measured["suites"] for part in suite["parts"]) > 10
    with served.http.stream("GET", "/page/events", params={"path": "sample:animals"}) as stream:
        lines = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert any("valid_loss" in line for line in lines) and any("texts" in line for line in lines)
    settings = get(served, "/page/difference", a="sample:animals", b="sample:animals-ternary")
    assert settings["differences"]
    given = get(served, "/page/samples")
    assert all(each["prompt"] and len(each["answers"]) == 2 for each in given["sides"]["prompts"])
    text = get(served, "/page/samples/text", name=given["texts"][0]["name"])["text"]
    assert len(text.encode()) == given["texts"][0]["bytes"] > 50_000
    assert sorted(empty.rglob("*")) == before, "nothing was written"


def test_the_sample_models_answer_and_say_what_they_are(served: Running) -> None:
    models = get(served, "/page/info")["models"]
    assert [(each["id"], each["sample"]) for each in models] == [
        ("sample-animals", True), ("sample-animals-ternary", True),
    ]  # fmt: skip
    for model in models:
        asked = {"model": model["id"], "text": "There was once a quick brown", "top": 5}
        answer = served.post("/page/next", asked).json()
        assert answer["candidates"][0]["text"].strip() in ("fox", "dog", "cat", "mouse", "owl", "frog", "hen", "horse",
                                                           "goat", "duck", "hare", "crow")  # fmt: skip
        inside = served.post("/page/inside", {"model": model["id"], "text": "The quick brown fox"}).json()
        assert len(inside["layers"]) == 5  # before the first layer, and after each of four


@pytest.mark.parametrize("name", ["sample:..", "sample:../../pyproject.toml", "sample:/etc", "sample:gone", "sample:"])
def test_a_sample_name_leads_nowhere_else(served: Running, name: str) -> None:
    assert_error(served.http.get("/page/run", params={"path": name}), 404)
    assert_error(served.http.get("/page/limits", params={"path": name}), 404)
    assert_error(served.http.get("/page/samples/text", params={"name": name}), 404)


def test_nothing_writes_to_a_sample(served: Running) -> None:
    for route, body in (
        ("/page/start", {"verb": "resume", "path": "sample:animals"}), ("/page/stop", {"path": "sample:animals"}),
        ("/page/adapters", {"path": "sample:quickstart/arms/lora"}),
        ("/page/start", {"verb": "pretrain", "texts": ["sample:animals.txt"], "size": "1m"}),
    ):  # fmt: skip
        assert_error(served.post(route, body), 409 if route == "/page/stop" else 404)


def test_a_folder_of_the_user_with_such_a_name_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "sample:mine").mkdir()
    page = Page.of(tmp_path)
    assert page.holding("sample:mine") is page and page.holding("sample:quickstart").folder == SAMPLES.resolve()
    assert page.holding("workshop") is page
