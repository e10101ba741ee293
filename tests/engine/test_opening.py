"""Which engine answers, in which precision, and what is said where it is not the one in C++."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_comparison
import tiny_llama
from refusals import assert_refused
from waiting import HANG

from riyaz import native
from riyaz.config import Precision
from riyaz.engine import Request, opening
from riyaz.engine.native.runner import NativeRunner
from riyaz.engine.opening import engine_name, engine_note, open_engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.extras import install
from riyaz.sources import PRECISION, open_source

BF16_TOLERANCE = 0.06  # of a log-probability, between two engines that round activations to bf16 differently
QUANTISED_TOLERANCE = {"int8": 0.1, "int4": 1.5}  # of a log-probability, from fp32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(opening.ENGINE, raising=False)


def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", lambda: (None, "the C++ engine is not built: there is no g++"))


def test_the_engine_in_cpp_answers_unless_torch_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_engine(open_source(folder)).runner, NativeRunner) and engine_note() == ""
    monkeypatch.setenv(opening.ENGINE, "torch")
    assert isinstance(open_engine(open_source(folder)).runner, TorchRunner)
    assert engine_note() == "", "it is what the user wanted"


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", BF16_TOLERANCE)])
def test_both_engines_give_the_same_log_probabilities(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, tolerance: float
) -> None:
    found = []
    for engine in opening.ENGINES:
        monkeypatch.setenv(opening.ENGINE, engine)
        lm = open_engine(open_source(folder), precision)
        assert lm.served == precision
        found.append(lm.logprobs([Request(0, (1, 5, 9, 30))], [(7, 11, 200)])[0])
    assert found[0] == pytest.approx(found[1], abs=tolerance)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_small_weights_are_near_the_full_ones_and_not_torchs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    asked = [Request(0, (1, 5, 9, 30))], [(7, 11, 200)]
    exact, small = (open_engine(open_source(folder), each).logprobs(*asked)[0] for each in ("fp32", precision))
    assert 0 < abs(exact - small).max() < QUANTISED_TOLERANCE[precision]
    monkeypatch.setenv(opening.ENGINE, "torch")
    with assert_refused(f"RIYAZ_ENGINE: torch does not serve weights in {precision}; take auto, bf16 or fp32"):
        open_engine(open_source(folder), precision)


@pytest.mark.parametrize(
    ("dtype", "served"), [("F32", "bf16"), ("BF16", "bf16"), ("Q8_0", "int8 as stored"), ("Q4_1", "int4 as stored"),
                          ("Q4_0", "int4 as stored"), ("Q5_1", "int8")]
)  # fmt: skip
def test_auto_serves_what_the_file_stores(tmp_path: Path, dtype: str, served: str) -> None:
    tiny_llama.write_gguf(tmp_path / "model.gguf", dtype=dtype)
    assert open_engine(open_source(tmp_path / "model.gguf")).served == served


def test_auto_serves_what_the_configuration_names(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny", seed=3)
    path = folder / "config.json"
    for named, served in (("int8", "int8"), ("int3", "bf16"), (7, "bf16")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {PRECISION: named}))
        assert open_engine(open_source(folder)).served == served
    path.write_text(json.dumps(json.loads(path.read_text()) | {PRECISION: "int8"}))
    assert open_engine(open_source(folder), "bf16").served == "bf16", "the user's word counts"


def test_plain_loops_answer_and_that_they_are_slow_is_said(folder: Path) -> None:
    """As on a CPU without AVX2. The instruction set is chosen once, so in a process of its own."""
    command = [sys.executable, "-m", "riyaz", "generate", str(folder), "the card", "--max-tokens", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG, env={**os.environ, "RIYAZ_ISA": "scalar"}
    )
    assert done.returncode == 0 and f"note: the C++ engine answers with {native.PLAIN}" in done.stderr
    assert engine_note() == "" or native.isa() == "scalar"


def test_the_wheel_without_the_engine_names_what_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler is no help where there is no source, and torch may be there already."""
    monkeypatch.setattr(native, "REASON", tmp_path / "_native.txt")
    native.REASON.write_text(f"{native.WITHOUT}, for machines that no other wheel is for\n")
    assert "g++" not in native._not_built() and native._not_built().endswith("that no other wheel is for")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert native._not_built().endswith(f"; {install('train')}, so that torch answers")
    native.REASON.write_text("there is no g++\n")
    assert native._not_built() == f"there is no g++; {native.BUILD}"
    assert native.WITHOUT in (Path(__file__).parents[2] / "native/wheels.py").read_text()


def test_without_the_engine_in_cpp_torch_answers_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_built(monkeypatch)
    assert isinstance(open_engine(open_source(folder)).runner, TorchRunner)
    assert engine_note() == "torch answers: the C++ engine is not built: there is no g++"
    told = tiny_comparison.command("generate", folder, "the card", "--max-tokens", 2)
    assert told.status == 0 and f"note: {engine_note()}" in told.err.replace("\n", " ")
    monkeypatch.setenv(opening.ENGINE, "native")
    with assert_refused("the C++ engine is not built: there is no g++"):
        open_engine(open_source(folder))


def test_without_both_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_built(monkeypatch)
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    told = tiny_comparison.command("generate", folder, "the card")
    assert told.status == 2 and told.line == "error: the C++ engine is not built: there is no g++"


def test_an_unknown_engine_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(opening.ENGINE, "llama.cpp")
    with assert_refused("RIYAZ_ENGINE: unknown engine 'llama.cpp'; choose one of native, torch"):
        engine_name()
    told = tiny_comparison.command("predict", "the card", "--model", folder)
    assert told.status == 2 and "unknown engine" in told.line


@pytest.mark.parametrize("verb", ["generate", "predict", "evaluate", "run"])
def test_commands_serve_in_the_precision_that_is_asked_for(
    verb: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(30, "please"))
    asked: dict[str, tuple[object, ...]] = {
        "generate": (folder, "the card", "--max-tokens", 2),
        "predict": ("the card", "--model", folder),
        "evaluate": (folder, "--test", rows),
        "run": (folder, rows, "--out", tmp_path / "answers.jsonl"),
    }
    seen: list[str] = []
    monkeypatch.setattr(opening, "expect_memory", lambda source, precision, engine: seen.append(precision))
    told = tiny_comparison.command(verb, *asked[verb], "--precision", "int8")
    assert told.status == 0 and seen == ["int8"], told.err
    assert ("weights in      int8" in told.out) == (verb == "evaluate")
    refused = tiny_comparison.command(verb, *asked[verb], "--precision", "int3")
    assert refused.status == 2 and "int3" in refused.line


def test_a_comparison_is_made_in_the_precision_in_which_it_serves(
    model_folder: Path, inside: list[tuple[str, ...]], asked: tuple[object, ...], tmp_path: Path, home: Path
) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(18, "today"))
    line = ("compare", tmp_path / "data", *asked, "--methods", "nearest,zero_shot,lora", "--precision", "int8")
    with tiny_comparison.small_machine(home):
        told = tiny_comparison.command(*line, "--out", tmp_path / "out")
    assert told.status == 0, told.err
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert {name: arm.get("served") for name, arm in arms.items()} == {
        "nearest": None, "zero_shot": "int8", "lora": "int8",
    }  # fmt: skip
    assert all(arm["status"] == "ok" for arm in arms.values())
    assert arms["lora"]["checks"]["reopened"]["ok"]
    assert (
        "weights in" in (tmp_path / "out/report.md").read_text() and "int8" in (tmp_path / "out/report.md").read_text()
    )
    with tiny_comparison.small_machine(home):
        other = tiny_comparison.command(*line[:-1], "int4", "--out", tmp_path / "out")
    assert other.status == 2 and "this folder holds another comparison (other precision)" in other.line
