"""benchmarks/agreement.py: agreement, a tie and a fault of one of the two engines are told apart."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from load_script import load_script

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.data.task import Task
from riyaz.sources import open_source

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "agreement.py"
Run = Callable[..., tuple[int, dict[str, Any]]]
Fault = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    return load_script("benchmarks/agreement.py")


@pytest.fixture
def run(agreement: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the benchmark with both engines in this process; `fault` changes what the one in C++ found."""

    def benchmark(*arguments: object, fault: Fault = lambda found: None) -> tuple[int, dict[str, Any]]:
        def child(engine: str, do: str, **job: Any) -> Any:
            monkeypatch.setenv("RIYAZ_ENGINE", engine)
            found = json.loads(json.dumps(getattr(agreement, do)(**job)))
            if engine == agreement.OURS:
                fault(found)
            return found

        monkeypatch.setattr(agreement, "child", child)
        monkeypatch.setattr(sys, "argv", ["agreement.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            agreement.main()
        return int(end.value.code or 0), json.loads(capsys.readouterr().out.splitlines()[-1])

    return benchmark


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_gguf(tmp_path_factory.mktemp("agreement") / "model.gguf")


def test_nearness_is_complete_in_float32_and_tells_rounded_inputs(
    run: Run, agreement: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found = run(model, "--nearness", fault=lambda side: side.update(same_answers=59))
    assert status == 1 and found["answers"] == 60 and not found["equal"]
    assert all(0 < nats < 0.1 for nats in found["divergence"].values())
    opened = agreement.open_target
    monkeypatch.setattr(agreement, "open_target", lambda target, base, _: opened(target, base, "fp32"))
    status, found = run(model, "--nearness")
    assert status == 0 and found["equal"] and found["same_answers"] == 60 and set(found["divergence"].values()) == {0.0}


@pytest.mark.parametrize("flags", [(), ("--nearness",)])
def test_an_unknown_model_is_one_line(
    agreement: ModuleType, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["agreement.py", "no-such-model", *flags])
    with pytest.raises(SystemExit) as end:
        agreement.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("error: unknown model 'no-such-model'")


def test_both_engines_agree_on_a_model_and_faults_are_found(run: Run, model: Path) -> None:
    asked = (model, "--prompts", 3, "--tokens", 4)
    status, found = run(*asked)
    assert status == 0 and found["equal"] and found["greedy"] == {"equal": 3, "tie": 0, "different": 0}
    assert found["nats"]["fp32"] < 1e-5 and found["served"]["native auto"] == "bf16"

    def another_token(side: dict[str, Any]) -> None:
        for tokens in side["tokens"][:1]:
            tokens[-1] = (tokens[-1] + 7) % 512

    status, found = run(*asked, fault=another_token)
    (row,) = found["parted"]
    assert row["token"] == 3 and row["gap"] == row["largest_gap"] > 0
    assert (row["text"] == "different") == (row["gap"] >= 0.1) == (status == 1)
    assert run(*asked, fault=lambda side: side["nats"].append(side["nats"].pop() + 0.2))[0] == 1


def test_greedy_texts_are_equal_part_at_a_tie_or_differ(agreement: ModuleType) -> None:
    assert agreement.parting([1, 2], [1, 2], [0.0, 0.0]) == {"text": "equal"}
    tie = {"text": "tie", "token": 1, "gap": 0.05, "largest_gap": 0.05}
    assert agreement.parting([1, 2, 3], [1, 4, 9], [0.0, 0.05, 0.0]) == tie
    later = agreement.parting([1, 2, 3], [1, 4, 9], [0.0, 0.05, 3.0])  # a fault behind the tie
    assert later["text"] == "different" and later["token"] == 1
    assert agreement.parting([1, 2], [1, 2], [0.0, 3.0])["text"] == "different"


def test_texts_come_from_files_in_turns(agreement: ModuleType, run: Run, model: Path, tmp_path: Path) -> None:
    plain, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text(tiny_llama.CORPUS)
    rows.write_text('{"id": "1", "text": "where is my refund"}\n{"text": "the order did not arrive", "n": 2}\n')
    assert agreement.content(rows) == "where is my refund\n\nthe order did not arrive"
    status, found = run(model, "--prompts", 4, "--tokens", 2, "--text", plain, rows)
    assert status == 0 and found["prompts"] == 4 and found["prompt_tokens"] > 32 + 96


def test_every_arm_of_a_comparison_is_answered_by_both(run: Run, quick: Finished) -> None:
    status, found = run("--run", quick.out, "--limit", 6, "--precision", "fp32")
    assert status == 0 and list(found["arms"]) == [arm["method"] for arm in quick.document["arms"]]
    for name, arm in found["arms"].items():
        assert arm["rows"] == 6 and arm["differ"] == 0 and arm["p"] == 1, name
        assert arm["served"]["native"] == ("no model" if name in ("nearest", "linear") else "fp32")

    def another_label(side: dict[str, Any]) -> None:
        labels = sorted({row["text"] for row in side["rows"]} | {"billing", "refund"})
        side["rows"][0]["text"] = next(label for label in labels if label != side["rows"][0]["text"])

    status, found = run("--run", quick.out, "--limit", 6, "--precision", "fp32", fault=another_label)
    assert status == 1 and all(arm["differ"] == 1 for arm in found["arms"].values())
    (other,) = found["arms"]["nearest"]["others"]
    assert other == {"row": 0, "gap": None}  # a copied answer is never a tie
    assert found["arms"]["zero_shot"]["gaps"][0] > 0


def test_generated_answers_are_compared_where_they_part(run: Run, tmp_path: Path) -> None:
    base = tiny_llama.write_hf_folder(tmp_path / "tiny", seed=1)
    source, task = open_source(base), Task("short", (), "exact_match", "Answer the question in a few words.", "")
    model = BaseModel(source.name, str(base), source.sha256(), 0)
    artifacts.write(tmp_path / "a", Artifact("zero_shot", base=model, task=task, max_new_tokens=5), {})
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(3, "today"))
    asked = ("--artifact", tmp_path / "a", "--test", rows, "--precision", "fp32")
    status, found = run(*asked)
    assert status == 0 and found["arms"]["a"]["rows"] == 3 and found["arms"]["a"]["differ"] == 0

    def ended(side: dict[str, Any]) -> None:
        side["rows"][1] |= {"tokens": side["rows"][1]["tokens"][:2], "text": "cut"}
        side["rows"][2] |= {"passages": [{"document": "another"}], "text": "of another passage"}

    arm = run(*asked, fault=ended)[1]["arms"]["a"]
    assert arm["differ"] == 2 and arm["other_passages"] == 1 and len(arm["gaps"]) == 1 and arm["gaps"][0] > 0


def test_a_row_is_a_tie_by_the_precision_that_served_it(agreement: ModuleType) -> None:
    mine = [{"score": score} for score in (1.0, 0.0, 1.0, 1.0)]
    wanted = [{"score": 1.0}, {"score": 1.0, "gap": 0.05}, {"score": 1.0, "gap": 0.4}, {"score": 0.0, "gap": None}]
    served = {name: agreement.judged(mine, wanted, tie) for name, tie in agreement.TIES.items()}
    assert [served[name]["ties"] for name in ("fp32", "bf16", "int4")] == [0, 1, 2]
    assert not served["bf16"]["equal"] and served["bf16"]["others"] == [{"row": 2, "gap": 0.4}]
    assert served["int4"]["equal"] and served["int4"]["other_passages"] == 1 and served["int4"]["scores_differ"] == 2
    won, lost = [{"score": 1.0}] * 6, [{"score": 0.0, "gap": 0.01}] * 6
    assert not agreement.judged(won, lost, 0.1)["equal"]  # ties that all fall to one side


def test_each_engine_has_a_process_of_its_own(quick: Finished, tmp_path: Path) -> None:
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(3, "today"))
    command = [sys.executable, SCRIPT, "--artifact", quick.artifact("zero_shot"), "--test", rows, "--precision", "fp32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (arm,) = json.loads(done.stdout.splitlines()[-1])["arms"].values()
    assert arm["rows"] == 3 and arm["served"] == {"native": "fp32", "torch": "fp32"}
