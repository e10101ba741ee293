"""benchmarks/training.py: both sides train on the same rows in the same order, and the last line is the table."""

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny

from riyaz.data.packing import batch
from riyaz.tokenizer import Tokenizer
from riyaz.train import TrainPlan, learning_rate

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "training.py"
CURVES = 1e-3  # nats between the loss curves of both sides, in float32
LABELS = ("billing", "delivery", "refund")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_training", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_labelled(path: Path, count: int) -> Path:
    """A text,label file."""
    rows = [{"text": f"where is my order number {i}?", "label": LABELS[i % 3]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def prepared(training: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` writes for a tiny model and two timed steps."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = tiny.write_hf_folder(folder / "tiny", seed=1, layers=1)
    training.prepare(argparse.Namespace(model=str(model), even=None, steps=2), folder)
    return folder


def test_cut_takes_consecutive_pieces_and_labels_the_last_two_fifths(training: ModuleType) -> None:
    stream = list(range(100))
    pieces = training.cut(stream, np.array([10, 25, 5]))
    assert [tokens for tokens, _ in pieces] == [stream[:10], stream[10:35], stream[35:40]]
    assert [prompt for _, prompt in pieces] == [6, 15, 3]
    json.dumps(pieces)
    with pytest.raises(AssertionError, match="too short"):
        training.cut(stream, np.array([60, 50]))


def test_both_sides_use_riyazs_order_and_schedule(training: ModuleType) -> None:
    assert training.order(24) == [batch(24, 8, 0, step) for step in range(3)]
    assert sorted(itertools.chain(*training.order(24))) == list(range(24))
    plan = TrainPlan(steps=5, learning_rate=3.0, warmup=0.0)
    assert [3 * training.schedule(step, 5) for step in range(5)] == pytest.approx(
        [learning_rate(plan, step) for step in range(5)]
    )


def test_tokens_per_second_counts_the_rows_of_the_timed_steps(training: ModuleType) -> None:
    lengths = list(range(100, 132))  # four steps of eight
    timed = sum(lengths[i] for step in (1, 2) for i in batch(32, 8, 0, step))
    assert training.tokens_s(lengths, [0.0, 9.0, 10.0, 11.5, 99.0]) == pytest.approx(timed / 2.5)


def test_prepare_writes_rows_of_both_kinds(prepared: Path) -> None:
    mixed, even = (json.loads((prepared / f"{name}.json").read_text()) for name in ("mixed", "even"))
    assert len(mixed) == len(even) == 32
    assert all(24 <= len(tokens) <= 512 and 0 < prompt < len(tokens) for tokens, prompt in mixed)
    assert len({len(tokens) for tokens, _ in mixed}) > 10
    lengths = {len(tokens) for tokens, _ in even}  # text, as no file was given
    assert lengths <= set(range(45, 66)) and len(lengths) > 5


def test_labelled_rows_go_through_the_chat_template(training: ModuleType, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(tiny.write_tokenizer(tmp_path))
    rows = training.banking(tokenizer, write_labelled(tmp_path / "even.jsonl", 30), 24)
    assert len(rows) == 24
    for number, (tokens, prompt) in enumerate(rows):
        assert f"where is my order number {number}?" in tokenizer.decode(tokens[:prompt])
        assert tokenizer.decode(tokens[prompt:]) == LABELS[number % 3] and tokens[-1] == tokenizer.end_of_turn


@pytest.mark.parametrize(
    ("method", "rows", "rate"), [("lora", "even", 5e-3), ("full", "mixed", 5e-3), ("prompt_tuning", "even", 0.5)]
)
def test_the_loss_curves_of_both_sides_lie_on_each_other(
    training: ModuleType, prepared: Path, monkeypatch: pytest.MonkeyPatch, method: str, rows: str, rate: float
) -> None:
    (prepared / "rows.json").write_bytes((prepared / f"{rows}.json").read_bytes())
    monkeypatch.setitem(training.RATES, method, rate)  # so that a row out of order or a rate off would show
    ours, theirs = (side(method, "float32", prepared) for side in (training.measure_riyaz, training.measure_peer))
    assert len(ours["losses"]) == 4 and ours["losses"][-1] < ours["losses"][0]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=CURVES)
    assert all(side["tokens_s"] > 0 and side["rss_mb"] > 0 for side in (ours, theirs))


def test_summarise_compares_with_the_faster_peer(training: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(speed: float, memory: float, losses: tuple[float, ...] = (4.0, 3.0)) -> dict:
        return {"tokens_s": speed, "rss_mb": memory, "losses": losses}

    runs = {
        ("riyaz", "bfloat16"): [run(300.0, 500.0, (4.0, 3.25)), run(310.0, 510.0), run(900.0, 505.0)],
        ("peer", "float32"): [run(100.0, 1000.0), run(101.0, 990.0), run(50.0, 1001.0)],
        ("peer", "bfloat16"): [run(40.0, 700.0)],
    }
    row = training.summarise("lora", runs)
    assert row == {
        "tokens_s": 310.0, "rss_mb": 500, "ratio_tokens_s": 3.1, "ratio_rss": 0.51, "peer_tokens_s": 100.0,
        "peer_rss_mb": 990, "peer_dtype": "float32", "loss_gap": 0.25,
    }  # fmt: skip
    assert "largest gap 0.250" in capsys.readouterr().out
    assert training.summarise("lora", {("riyaz", "bfloat16"): [run(300.0, 500.0)]}) == {
        "tokens_s": 300.0, "rss_mb": 500,
    }  # fmt: skip


@pytest.mark.slow
def test_the_last_line_is_the_whole_table_as_json(training: ModuleType, tmp_path: Path) -> None:
    model, even = tiny.write_hf_folder(tmp_path / "model"), write_labelled(tmp_path / "even.jsonl", 30)
    command = [sys.executable, SCRIPT, "--peer", "--steps", "1", "--rounds", "1", "--model", model, "--even", even]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    table = json.loads(last)
    assert set(table) == {*training.CELLS, "cpu"}
    for cell in training.CELLS:
        assert table[cell].keys() >= {"ratio_tokens_s", "ratio_rss", "tokens_s"}
        assert table[cell]["loss_gap"] < 0.1  # bf16 beside float32
        assert sum(line.startswith(f"{cell} round 1 ") for line in lines) == 3


@pytest.mark.slow
def test_one_cell_without_the_peer(tmp_path: Path) -> None:
    model = tiny.write_hf_folder(tmp_path / "model")
    command = [sys.executable, SCRIPT, "--steps", "1", "--rounds", "1", "--model", model, "--only", "lora"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"lora", "cpu"}
