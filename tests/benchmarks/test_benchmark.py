"""benchmarks/training.py: both sides train on the same rows in the same order, and the last line is the table."""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_llama
import torch
from load_script import load_script
from script_here import run_here
from torch.utils.flop_counter import FlopCounterMode

from riyaz import native
from riyaz.data.packing import batch, pack
from riyaz.data.rows import Row
from riyaz.hardware import bf16_is_fast
from riyaz.sources import open_source
from riyaz.text.tokenizer import Tokenizer
from riyaz.train import TrainPlan, answer_nats, learning_rate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"
CHOSEN = ("model", "threads", "length", "peer", "cpu")  # beside the cells in the JSON
CURVES = 1e-3  # nats between the loss curves of both sides, in float32
LABELS = ("billing", "delivery", "refund")


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # it imports the two modules beside it
        yield load_script("benchmarks/training.py")


@pytest.fixture(scope="module")
def sides(training: ModuleType) -> ModuleType:
    return training.training_sides


@pytest.fixture(scope="module")
def limits(training: ModuleType) -> ModuleType:
    return training.training_limits


def write_labelled(path: Path, count: int) -> Path:
    """A text,label file."""
    rows = [{"text": f"where is my order number {i}?", "label": LABELS[i % 3]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def prepared(training: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` writes for a tiny model and two timed steps."""
    folder = tmp_path_factory.mktemp("benchmark")
    model = tiny_llama.write_hf_folder(folder / "tiny", seed=1, layers=1)
    training.prepare(argparse.Namespace(model=str(model), even=None, length=None, steps=2), folder)
    return folder


def test_cut_takes_consecutive_pieces_and_labels_the_last_two_fifths(training: ModuleType) -> None:
    stream = list(range(100))
    pieces = training.cut(stream, np.array([10, 25, 5]))
    assert [tokens for tokens, _ in pieces] == [stream[:10], stream[10:35], stream[35:40]]
    assert [prompt for _, prompt in pieces] == [6, 15, 3]
    json.dumps(pieces)
    with pytest.raises(AssertionError, match="too short"):
        training.cut(stream, np.array([60, 50]))


def test_both_sides_use_riyazs_order_and_schedule(sides: ModuleType) -> None:
    assert sides.order(24) == [batch(24, 8, 0, step) for step in range(3)]
    assert sorted(itertools.chain(*sides.order(24))) == list(range(24))
    plan = TrainPlan(steps=5, learning_rate=3.0, warmup=0.0)
    assert [3 * sides.schedule(step, 5) for step in range(5)] == pytest.approx(
        [learning_rate(plan, step) for step in range(5)]
    )


def test_the_tuned_peer_takes_rows_of_similar_length(sides: ModuleType) -> None:
    lengths = [int(n) for n in np.random.default_rng(1).integers(24, 512, 40)]
    steps = sides.by_length(lengths)
    assert sorted(itertools.chain(*steps)) == list(range(40)) and {len(step) for step in steps} == {8}
    bounds = sorted((min(lengths[i] for i in step), max(lengths[i] for i in step)) for step in steps)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(bounds))
    middle = sorted(steps, key=lambda step: max(lengths[i] for i in step))[1:3]
    assert steps[0] in middle and steps[-1] in middle  # which are not timed


def test_tokens_per_second_counts_the_rows_of_the_timed_steps(sides: ModuleType) -> None:
    lengths = list(range(100, 132))  # four steps of eight
    timed = sum(lengths[i] for step in (1, 2) for i in batch(32, 8, 0, step))
    assert sides.tokens_s(lengths, [0.0, 9.0, 10.0, 11.5, 99.0], sides.order(32)) == pytest.approx(timed / 2.5)


def test_prepare_writes_rows_of_both_kinds(prepared: Path) -> None:
    mixed, even = (json.loads((prepared / f"{name}.json").read_text()) for name in ("mixed", "even"))
    assert len(mixed) == len(even) == 32
    assert all(24 <= len(tokens) <= 512 and 0 < prompt < len(tokens) for tokens, prompt in mixed)
    assert len({len(tokens) for tokens, _ in mixed}) > 10
    lengths = {len(tokens) for tokens, _ in even}  # text, as no file was given
    assert lengths <= set(range(45, 66)) and len(lengths) > 5


def test_labelled_rows_go_through_the_chat_template(training: ModuleType, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(tiny_llama.write_tokenizer(tmp_path))
    rows = training.banking(tokenizer, write_labelled(tmp_path / "even.jsonl", 30), 24)
    assert len(rows) == 24
    for number, (tokens, prompt) in enumerate(rows):
        assert f"where is my order number {number}?" in tokenizer.decode(tokens[:prompt])
        assert tokenizer.decode(tokens[prompt:]) == LABELS[number % 3] and tokens[-1] == tokenizer.end_of_turn


@pytest.mark.parametrize(
    ("method", "rows", "rate"), [("lora", "even", 5e-3), ("full", "mixed", 5e-3), ("prompt_tuning", "even", 0.5)]
)
def test_the_loss_curves_of_both_sides_lie_on_each_other(
    sides: ModuleType, prepared: Path, monkeypatch: pytest.MonkeyPatch, method: str, rows: str, rate: float
) -> None:
    (prepared / "rows.json").write_bytes((prepared / f"{rows}.json").read_bytes())
    monkeypatch.setitem(sides.RATES, method, rate)  # so that a row out of order or a rate off would show
    monkeypatch.setenv("RIYAZ_FROZEN", "exact")  # codes round, which high rates grow
    ours, theirs = (side(method, "float32", prepared) for side in (sides.measure_riyaz, sides.measure_plain))
    assert len(ours["losses"]) == 4 and ours["losses"][-1] < ours["losses"][0]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=CURVES)
    assert all(side["tokens_s"] > 0 and side["rss_mb"] > 0 for side in (ours, theirs))


@pytest.mark.parametrize("method", ["lora", "full", "prompt_tuning"])
def test_the_tuned_peers_loss_is_the_plain_ones(sides: ModuleType, prepared: Path, method: str) -> None:
    rows = json.loads((prepared / "mixed.json").read_text())[:8]
    found = []
    for loss_of in (sides.plain_loss, sides.labelled_loss):
        model = sides.peer_model(method, "float32", prepared)
        weights = [p for p in model.parameters() if p.requires_grad]
        loss = loss_of(model)(*sides.padded(rows))
        loss.backward()
        found.append((loss.item(), sum(p.grad.square().sum().item() for p in weights if p.grad is not None)))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_pairs_are_those_that_the_mask_lets_see_each_other(limits: ModuleType) -> None:
    for lengths, prefix, window in (([3, 5], 4, None), ([3, 5], 4, 3), ([7], 0, 2), ([6, 1], 0, None)):
        seen = 0
        for i, length in enumerate(lengths):
            for query in range(0 if i == 0 else prefix, prefix + length):  # the prefix is computed once
                seen += sum(window is None or query - key < window for key in range(query + 1))
        assert limits.pairs(lengths, prefix, window) == seen


def added_flops(total: tuple, a: tuple[int, int], b: tuple[int, int], **options: object) -> int:
    """Those of `total.addmm_(a, b)`, which torch's counter does not count."""
    return 2 * a[0] * a[1] * b[1]


@pytest.mark.parametrize("method", ["lora", "full", "prompt_tuning"])
def test_counted_operations_are_those_of_torchs_counter(
    sides: ModuleType, limits: ModuleType, prepared: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(native, "trains", lambda: False)  # the counter sees torch's functions only
    rows = [Row(tuple(range(3, 3 + n)), tuple(range(5, 5 + n // 2))) for n in (30, 41)]
    packed, model = pack(rows), sides.riyaz_model(method, "float32", prepared)
    shape = limits.shape_of(open_source(prepared / "model"))
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added_flops}) as counter:
        answer_nats(model, packed).backward()
    attention = 12 * shape.attention * sum(
        limits.pairs(packed.lengths, packed.shared + 20 * (method == "prompt_tuning"), window)
        for window in shape.windows
    )  # fmt: skip
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for kind, count in counts.items() if kind in (torch.ops.aten.mm, torch.ops.aten.addmm_))
    assert attention > 0
    assert limits.flops(shape, packed, method, 16, 20) - attention == products


def test_summarise_compares_with_the_faster_peer(training: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(speed: float, memory: float, losses: tuple[float, ...] = (4.0, 3.0)) -> dict:
        return {"tokens_s": speed, "rss_mb": memory, "losses": losses, "flops_s": speed * 1e9}

    ours = {
        ("riyaz", "float32"): [run(300.0, 500.0, (4.0, 3.25)), run(310.0, 510.0), run(900.0, 505.0)],
        ("limit", "float32"): [{"flops_s": 400e9}, {"flops_s": 500e9}],
        ("limit", "bfloat16"): [{"flops_s": 1000e9}],
    }
    alone = {"tokens_s": 310.0, "rss_mb": 500, "dtype": "float32", "gflops": 310.0, "limit_gflops": 450.0,
             "limit_share": 0.689, "bf16_limit_gflops": 1000.0, "bf16_limit_share": 0.31}  # fmt: skip
    assert training.summarise("lora", "float32", ours) == alone
    peers = {
        ("peer", "float32"): [run(100.0, 1000.0), run(101.0, 990.0), run(50.0, 1001.0)],
        ("peer", "bfloat16"): [run(40.0, 700.0)],
    }
    against = {"ratio_tokens_s": 3.1, "ratio_rss": 0.51, "peer_tokens_s": 100.0, "peer_rss_mb": 990,
               "peer_dtype": "float32"}  # fmt: skip
    assert training.summarise("lora", "float32", ours | peers) == alone | against | {"loss_gap": 0.25}
    assert "largest gap 0.250" in capsys.readouterr().out
    tuned = {("tuned", dtype): results for (_, dtype), results in peers.items()}
    assert training.summarise("lora", "float32", ours | tuned) == alone | against


def test_peer_alone_means_the_plain_one(training: ModuleType) -> None:
    parse = training.options().parse_args
    assert [parse(words.split()).peer for words in ("", "--peer", "--peer tuned", "--peer --only lora")] == [
        None, "plain", "tuned", "plain",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_last_line_is_the_table_as_json(
    training: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every measurement in this process; the next test starts one for riyaz, as the program does for each."""
    monkeypatch.setattr(subprocess, "run", run_here)
    model, even = tiny_llama.write_hf_folder(tmp_path / "model"), write_labelled(tmp_path / "even.jsonl", 30)
    cells = ("lora_even", "full")  # one on each kind of rows
    command = [sys.executable, SCRIPT, "--peer", "--steps", "1", "--rounds", "1", "--model", model, "--even", even,
               *(part for cell in cells for part in ("--only", cell))]  # fmt: skip
    *lines, last = run_here(command).stdout.splitlines()
    table = json.loads(last)
    assert set(table) == {*cells, *CHOSEN} and {*cells} < {*training.CELLS}
    for cell in cells:
        assert table[cell].keys() >= {"ratio_tokens_s", "ratio_rss", "tokens_s"}
        assert table[cell]["loss_gap"] < 0.1  # bf16 beside float32
        assert sum(line.startswith(f"{cell} round 1 ") for line in lines) == (4 if bf16_is_fast() else 5)


@pytest.mark.slow
def test_one_cell_without_the_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Riyaz in a process of its own, as all sides are, the measurements of the limits in this one."""
    started = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: (
        started if "riyaz" in command else run_here)(command, **options))  # fmt: skip
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # which --threads sets
        monkeypatch.setenv(name, "1")
    model = tiny_llama.write_hf_folder(tmp_path / "model")
    command = [sys.executable, SCRIPT, "--steps", "1", "--rounds", "1", "--model", model, "--only", "lora",
               "--length", "64", "--threads", "1"]  # fmt: skip
    table = json.loads(run_here(command).stdout.splitlines()[-1])
    assert set(table) == {"lora", *CHOSEN} and (table["length"], table["threads"], table["peer"]) == (64, 1, None)
