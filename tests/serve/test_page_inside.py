"""POST /page/inside: each part equals `riyaz inside --json`, at most 16 wait, and running answers go before it."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_server import Running, assert_error, running
from native_models import lora_of, soft_of
from test_linear_classifier import classifier, written
from tiny_llama import write_hf_folder
from waiting import HANG, until

from riyaz import adapters
from riyaz.cli import main as cli
from riyaz.families import describe
from riyaz.serve import long_work
from riyaz.serve.opening import Opener
from riyaz.serve.page import inside, readings
from riyaz.serve.page.place import Page
from riyaz.sources import open_source

TEXT = "the card is lost and my card"
VECTORS = 5  # of the soft prompt
TERNARY = "sample-animals-ternary"  # it comes with the package


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a LoRA and a soft prompt of it, one with other tokens, and one that is no language
    model."""
    folder = tmp_path_factory.mktemp("inside")
    base = write_hf_folder(folder / "tiny", seed=1)
    write_hf_folder(folder / "other", seed=2, vocab=320)
    family = describe(open_source(base))
    for name in ("lora", "soft"):
        (folder / name).mkdir()
    adapters.peft.write(lora_of(base, 1, 4), folder / "lora", family, base=str(base))
    soft = soft_of(base, 2, VECTORS).soft_prompt
    assert soft is not None
    adapters.peft_prompt.write(soft, folder / "soft", family, base=str(base))
    written(folder / "made", classifier())
    (folder / "made/artifact").rename(folder / "words")
    return folder


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    opener, page = Opener("fp32"), Page.of(place)
    for name in ("tiny", "lora", "soft", "other", "words"):
        opener.serve(str(place / name))
    opener.serve(TERNARY)
    with running(opener, page=page) as live:
        live.http.headers["x-riyaz-token"] = page.token
        yield live


def part(served: Running, name: str = "layers", **body: Any) -> dict[str, Any]:
    answer = served.post("/page/inside", {"model": "tiny", "text": TEXT, "part": name, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def command(capsys: pytest.CaptureFixture[str], target: Path | str, *options: str, text: str = TEXT) -> dict[str, Any]:
    """What `riyaz inside --json` prints."""
    capsys.readouterr()
    assert cli.main(["inside", str(target), text, "--json", "--precision", "fp32", *options]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("model", ["tiny", "lora", "soft"])
def test_every_part_equals_the_command(
    served: Running, place: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    wanted = command(capsys, place / model, "--at", "3", "--layer", "2", "--head", "1")
    at = wanted["at"]
    first = part(served, model=model, at=at)
    assert {key: first[key] for key in ("at", "layers", "appears", "embedding_share", "next", "model")} == {
        key: wanted[key] for key in ("at", "layers", "appears", "embedding_share", "next", "model")
    }
    assert first["tokens"] == [{k: v for k, v in each.items() if k != "near"} for each in wanted["tokens"]]
    assert first["left_out"] == 0 and first["soft"] == (VECTORS if model == "soft" else 0)
    heads = part(served, "heads", model=model, at=at)["heads"]
    assert heads == wanted["attention"].pop("heads") and len(heads) == 2 * wanted["model"]["heads"]
    attention = part(served, "attention", model=model, at=at, layer=1, head=0)
    assert attention["attention"] == wanted["attention"]
    assert attention["looks"][0] == wanted["attention"]["weights"][at][: at + 1]
    near = part(served, "near", model=model)["near"]
    assert near == [each["near"] for each in wanted["tokens"] if each["id"] >= 0]
    product = part(served, "product", model=model, at=at)["product"]
    assert product.pop("speed") is None and wanted["product"].pop("speed") is not None
    assert product == wanted["product"]


def test_before_equals_the_command(served: Running, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = command(capsys, place / "lora", "--before", str(place / "tiny"))["before"]
    between = part(served, "before", model="lora", before="tiny")["before"]
    assert between["target"] == "tiny" and max(between["divergence"]) > 0
    for key in ("divergence", "moved", "lens", "parts"):
        assert between[key] == wanted[key]
    weights = part(served, "weights", model="lora", before="tiny")["weights"]
    assert weights == {key: wanted[key] for key in ("touched", "linears")}
    pairs = len(weights["linears"])
    assert weights["touched"] == {"prompt": [], "vectors": 0, "pairs": pairs, "weights": 0, "labels": 0}
    assert len(weights["linears"]) == 14 and all(len(each["spectrum"]) == 4 for each in weights["linears"])
    assert part(served, "weights", model="tiny", before="tiny")["weights"]["linears"] == []
    alike = part(served, "before", before="tiny")["before"]
    assert set(alike["divergence"]) == {0.0} and alike["parts"] is None


def test_codes_equal_the_command(served: Running, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = command(capsys, TERNARY, "--codes")["codes"]
    counted = part(served, "codes", model=TERNARY)["codes"]
    assert counted == wanted and {each["kind"] for each in counted} == {"ternary"}
    assert all(each["counts"][1] == round(each["zeros"] * sum(each["counts"])) > 0 for each in counted)
    assert part(served, "codes")["codes"] == []


def test_the_small_pictures_are_the_weights(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = part(served, "attention", layer=0, head=1)
    pictures, side = attention["pictures"], attention["pictures"]["side"]
    bytes_of = np.frombuffer(base64.b64decode(pictures["heads"][1]), np.uint8).reshape(side, side)
    np.testing.assert_array_equal(bytes_of, np.rint(255 * np.array(attention["attention"]["weights"])))
    seen = np.random.default_rng(0).random((150, 150))
    small = inside._small(seen)
    assert small.shape == (64, 64) and small.max() == round(255 * seen.max())


def test_of_a_long_text_the_last_tokens_are_read(served: Running, place: Path) -> None:
    text = "the card is lost " * 90
    long = part(served, text=text)
    assert len(long["tokens"]) == 256 and long["left_out"] > 0 and long["at"] == 255
    whole = served.post("/page/next", {"model": "tiny", "text": text}).json()["tokens"]
    assert len(whole) == 256 + long["left_out"]
    assert [each["id"] for each in long["tokens"]] == [each["id"] for each in whole[-256:]]
    attention = part(served, "attention", text=text)
    assert len(attention["attention"]["weights"]) == 256 and attention["pictures"]["side"] == 64


def test_what_is_not_there_is_refused(served: Running) -> None:
    for wrong, param in [
        ({"text": ""}, "text"), ({"at": 99}, "at"), ({"at": -99}, "at"), ({"layer": 2}, "layer"),
        ({"head": 4}, "head"), ({"part": "all"}, "part"), ({"model": "words"}, "model"), ({"part": "before"}, "before"),
        ({"part": "weights"}, "before"),
        ({"part": "before", "before": "words"}, "before"), ({"part": "before", "before": "other"}, "before"),
        ({"model": "soft", "at": 1}, "at"),
    ]:  # fmt: skip
        answer = served.post("/page/inside", {"model": "tiny", "text": TEXT, **wrong})
        assert assert_error(answer, 400)["param"] == param, wrong
    assert_error(served.post("/page/inside", {"model": "none", "text": TEXT}), 404)
    assert served.state.readings.open == 0 and served.idle()


def test_parts_of_one_text_are_read_once_and_the_reading_is_dropped(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = []
    plain = inside.read
    monkeypatch.setattr(inside, "read", lambda *a: times.append(a[1]) or plain(*a))
    text = "my money is late"
    for name in ("layers", "attention", "heads", "product", "near"):
        part(served, name, text=text)
    part(served, "attention", text=text, at=1)
    assert len(times) == 1
    part(served, text=text, at=1)
    part(served, "layers", text=text, at=1, model="lora")
    assert len(times) == 3, "another token, another model"
    monkeypatch.setattr(readings, "KEPT", 0.05)
    part(served, text=text)
    until(lambda: served.state.readings._kept is None, "it is dropped")
    part(served, "attention", text=text)
    assert len(times) == 5


def test_at_most_sixteen_wait(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    go, plain = threading.Event(), inside._made

    def held(*arguments: Any) -> Any:
        go.wait(HANG)
        return plain(*arguments)

    monkeypatch.setattr(inside, "_made", held)
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(part, served) for _ in range(readings.MOST)]
        until(lambda: served.state.readings.open == readings.MOST, "so many wait")
        answer = served.post("/page/inside", {"model": "tiny", "text": TEXT})
        error = assert_error(answer, 429)
        assert int(answer.headers["retry-after"]) > 0 and error["queue_limit"] == 16
        go.set()
        assert len({json.dumps(each.result()) for each in waiting}) == 1
    assert served.state.readings.open == 0


def test_work_aside_rests_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [0.0], []
    monkeypatch.setattr(long_work, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def steps() -> Any:
        for number in range(5):
            now[0] += 1.0
            done.append(number)
            yield
        return "end"

    line, work = long_work.Aside(), long_work.Work(steps, aside=True)
    line.add(work)
    for _ in range(45):  # steps of others, one second each
        line.go_on_beside(others=True)
        now[0] += 1.0
    assert done == [0, 1, 2, 3, 4] and now[0] == 50.0, "one second in ten"
    line.go_on_beside(others=False)
    assert work.result.result() == "end" and not line.busy
    line.add(long_work.Work(steps, aside=True))
    before = now[0]
    for _ in range(6):
        line.go_on_beside(others=False)
    assert now[0] == before + 5.0, "alone it does not rest"


def test_a_running_answer_goes_on_beside_and_is_the_same(served: Running) -> None:
    body = {"model": "tiny", "prompt": "the card", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
    alone = served.post("/v1/completions", body).json()["choices"][0]["text"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(served.post, "/v1/completions", body)
        while not answer.done():
            part(served, "heads", text=TEXT)
        assert answer.result().json()["choices"][0]["text"] == alone
    assert served.idle()
