"""`riyaz ternarize` on a tiny model: what it leaves and measures, how it goes on, what it refuses; its loss."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
import torch
from tiny_comparison import command
from tiny_pretraining import Stopped

from riyaz.config import TernarizeConfig
from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.events import Event, Listen, Phase, Progress
from riyaz.families import describe
from riyaz.layers.attention import packed
from riyaz.layers.swaps.distil import head_divergence
from riyaz.layers.swaps.ternary import set_share
from riyaz.models import load
from riyaz.models.student import magnitudes, rounded, student, with_norms
from riyaz.pace import Pace
from riyaz.pretraining.running import Running
from riyaz.sources import open_source
from riyaz.ternarizing import run as ternarizing
from riyaz.ternarizing.distillation import Distillation
from riyaz.ternarizing.material import _examples

STEPS = ("--steps", 5, "--learning-rate", 1e-3)


@pytest.fixture(scope="module", autouse=True)
def machine(one_core: pytest.MonkeyPatch) -> None:
    one_core.setenv("RIYAZ_ENGINE", "torch")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "base", seed=3, context=64)


@pytest.fixture(scope="module")
def done(base: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tiny_comparison.Told, Path]:
    """A finished run that searched its rate, and what it said."""
    out = tmp_path_factory.mktemp("done") / "out"
    return command("ternarize", base, text, "--steps", 5, "--out", out, "--json"), out


def test_it_leaves_a_ternary_model_and_the_losses_beside_it(done: tuple[tiny_comparison.Told, Path]) -> None:
    told, out = done
    assert told.status == 0, told.err
    document = told.document
    assert document == json.loads((out / "ternarize.json").read_text()) and document["status"] == "done"
    assert 0 < document["loss_before"] < document["loss_rounded"] and document["loss"] < document["loss_rounded"]
    assert [found["rate"] for found in document["search"]] == sorted(ternarizing.RATES)
    assert document["rate"] in ternarizing.RATES and document["plan"]["steps"] == 5 and document["tokens"] > 900
    family = describe(open_source(out))
    assert family.model_type == "bitnet" and family.config.activation == "silu" and family.has_ternary
    assert not (out / "work").exists() and command("generate", out, "Hello", "--max-tokens", 2).status == 0
    told = command("quantize", out, "--precision", "ternary", "--out", out.parent / "packed")
    assert told.status == 0, told.err


def test_what_is_ternary_already_is_refused(
    done: tuple[tiny_comparison.Told, Path], text: Path, tmp_path: Path
) -> None:
    told = command("ternarize", done[1], text, *STEPS, "--out", tmp_path / "out")
    assert told.status == 2 and "is ternary already" in told.err and not (tmp_path / "out").exists()


def test_the_student_begins_as_its_teacher(base: Path, text: Path) -> None:
    source = open_source(base)
    assert with_norms(source)
    teacher, rows = load(source, torch.float32), [Row((1,), tuple(range(3, 40)))]
    made = student(source, teacher, rows)
    set_share(made.train(), 0.0)  # not rounded, so that only the norms differ
    layer = made.model.layers[1]
    sizes = magnitudes(teacher, rows)
    assert layer.mlp.ffn_sub_norm.weight.unique().item() == pytest.approx(sizes["model.layers.1.mlp.down_proj"])
    assert torch.equal(layer.mlp.up_proj.weight, teacher.model.layers[1].mlp.up_proj.weight)
    one = pack(rows)
    tokens, positions, attend = torch.from_numpy(one.tokens), torch.from_numpy(one.positions), packed(one.lengths)
    with torch.no_grad():
        theirs, ours, hard = (
            model.head(model(tokens, positions, attend)) for model in (teacher, made, rounded(source))
        )
    assert (ours - theirs).abs().mean() < (hard - theirs).abs().mean()


def test_norms_begin_with_the_size_of_usual_tokens(base: Path) -> None:
    """Some models have activations a hundred times the others' at one token, as SmolLM2 at its first."""
    teacher, name = load(open_source(base), torch.float32), "model.layers.0.mlp.down_proj"
    rows = [Row((5,), tuple(range(20 + 9 * row, 40 + 9 * row))) for row in range(4)]
    usual = magnitudes(teacher, rows)[name]
    loud = torch.tensor([[1000.0], *[[1.0]] * 20])  # (T, 1)
    teacher.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (inputs[0] * loud[: len(inputs[0])],))
    assert magnitudes(teacher, rows)[name] == pytest.approx(usual, rel=0.1)


def test_the_rounding_grows_and_the_models_own_distributions_are_learned(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    losses: list[int] = []
    monkeypatch.setattr("riyaz.layers.swaps.ternary.set_share", lambda model, share: shares.append(share))
    divergence = head_divergence
    monkeypatch.setattr("riyaz.layers.swaps.distil.head_divergence", lambda *a: losses.append(1) or divergence(*a))
    told = command("ternarize", base, text, "--steps", 20, "--learning-rate", 1e-3, "--out", tmp_path / "out")
    assert told.status == 0, told.err
    assert shares[-20:] == [0.5, *[1.0] * 19] and len(losses) >= 10


def test_after_the_opening_the_divergence_falls(base: Path, text: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    asked = TernarizeConfig(steps=100)
    found = ternarizing.ternarize(str(base), [text], asked, tmp_path / "out", listen=events.append)
    steps = [event.loss for event in events if isinstance(event, Progress) and event.method == "ternarize"]
    assert len(steps) == 80  # the opening's 20 are not trained again
    means = [sum(steps[begin : begin + 20]) / 20 for begin in (0, 20, 40, 60)]  # steps have different rows
    assert means == sorted(means, reverse=True) and means[-1] < 0.8 * means[0]
    assert found.loss is not None and found.loss < min(trial["loss"] for trial in found.search)


STEP = 0.75  # seconds that a step takes by the clock of the tests; a phase begins after one


class Clock:
    """The clock of a run, which goes on with its events."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in ("ternarizing.run", "pretraining.running", "train"):
            patch.setattr(f"riyaz.{module}.time", self)
        patch.setattr(Distillation, "step_seconds", lambda *_: STEP)
        patch.setattr(Running, "__init__", self.heard(Running.__init__))

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic

    def heard(self, begin: Callable[..., None]) -> Callable[..., None]:
        """`begin` of a run whose listener this clock is."""

        def begun(run: Any, folder: Any, name: str, listen: Listen) -> None:
            def tick(event: Event) -> None:
                self.now += STEP * isinstance(event, Progress) + isinstance(event, Phase)
                listen(event)

            begin(run, folder, name, tick)

        return begun


def test_the_budget_counts_the_openings(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []  # seconds of the command, and what the pace takes them for
    adjusted, clock = Pace.adjusted, Clock(monkeypatch)
    began = clock.now

    def watched(pace: Pace, plan: Any, step: int) -> Any:
        if pace.clock() is not None:
            seen.append((clock.now - began, pace.before + pace.clock()))
        return adjusted(pace, plan, step)

    monkeypatch.setattr(Pace, "adjusted", watched)
    found = ternarizing.ternarize(str(base), [text], TernarizeConfig(budget=60), tmp_path / "out")
    assert len(found.search) == 2 and len(seen) > 20
    assert all(taken - counted == pytest.approx(STEP) for taken, counted in seen), "it is heard before it is told"
    assert found.seconds == pytest.approx(seen[-1][1] + STEP)


def test_a_resumed_budget_counts_the_openings(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("ternarize", base, text, "--budget", "60s", "--out", tmp_path / "out")
    Clock(monkeypatch)
    paces: list[Pace] = []
    adjusted, train = Pace.adjusted, Distillation.train

    def stopping(self: Distillation, model: Any, plan: Any, name: str, *rest: Any, **options: Any) -> Any:
        if name == "train":
            raise Stopped
        return train(self, model, plan, name, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "train", stopping)
        patch.setattr(Running, "stopped", lambda run: None)
        assert command(*options).status == 1
    taken = {path.parent.name: json.loads(path.read_text())["seconds"]
             for path in (tmp_path / "out/work").glob("opening-*/state.json")}  # fmt: skip
    before = json.loads((tmp_path / "out/plan.json").read_text())["before"]
    monkeypatch.setattr(Pace, "adjusted", lambda pace, *rest: paces.append(pace) or adjusted(pace, *rest))
    told = command(*options, "--resume", "--json")
    assert told.status == 0, told.err
    chosen = taken.pop(f"opening-{told.document['rate']:g}")
    (other,) = taken.values()
    assert paces[0].before == pytest.approx(before + other) and paces[0].clock() > chosen
    assert json.loads((tmp_path / "out/plan.json").read_text())["before"] == before


def test_a_run_that_was_stopped_after_it_measured_measures_again(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("ternarize", base, text, *STEPS, "--out", tmp_path / "out")
    measured = Distillation.step_seconds

    def stopping(self: Distillation, batch: int) -> float:
        measured(self, batch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "step_seconds", stopping)
        assert command(*options).status == 130
    assert json.loads((tmp_path / "out/ternarize.json").read_text())["status"] == "stopped"
    assert command(*options, "--resume").status == 0


@pytest.mark.parametrize("damaged", ["[]", '{"seconds": null}', "{", "5"])
def test_a_damaged_state_counts_no_seconds(damaged: str, tmp_path: Path) -> None:
    distillation = Distillation(None, None, None, None, "float32", tmp_path / "work")  # type: ignore[arg-type]
    (tmp_path / "work/train").mkdir(parents=True)
    (tmp_path / "work/train/state.json").write_text(damaged)
    assert distillation.seconds("train") == 0


def test_families_without_a_place_for_norms_get_none(tmp_path: Path, text: Path) -> None:
    biased = tiny_llama.write_hf_folder(tmp_path / "biased", seed=3, context=64, attention_bias=True)
    told = command("ternarize", biased, text, *STEPS, "--group", 32, "--out", tmp_path / "out", "--json")
    assert told.status == 0 and not told.document["norms"], told.err
    family = describe(open_source(tmp_path / "out"))
    assert family.model_type == "llama" and family.scheme is not None and family.scheme.group == 32


def test_rows_bring_the_models_own_answers(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riyaz.ternarizing.material.ANSWER", 4)
    monkeypatch.setattr("riyaz.ternarizing.material.HELD", 4)
    monkeypatch.setattr("riyaz.ternarizing.run.CONTEXT", 1024)
    folder = tiny_llama.write_hf_folder(tmp_path / "long", seed=3)
    data = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(24, "please"))
    seen: list[Row] = []
    train = Distillation.train

    def watched(self: Distillation, *rest: Any, **options: Any) -> Any:
        seen.extend(self.material.train)
        return train(self, *rest, **options)

    monkeypatch.setattr(Distillation, "train", watched)
    told = command("ternarize", folder, data, *STEPS, "--out", tmp_path / "out")
    assert told.status == 0, told.err
    tokenizer = open_source(folder).tokenizer()
    assert len({row.answer for row in seen}) > 10 and all(row.answer[-1] == tokenizer.end_of_turn for row in seen)
    assert any("please" in tokenizer.decode(row.answer) for row in seen)


def test_a_stopped_run_goes_on_to_the_same_model(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("ternarize", base, text, *STEPS)
    assert command(*options, "--out", tmp_path / "straight").status == 0
    listen = ternarizing.replace

    def stopping(value: Any, **changes: Any) -> Any:
        if changes.get("method") == "ternarize" and getattr(value, "done", 0) == 3:
            raise Stopped
        return listen(value, **changes)

    with monkeypatch.context() as patch:
        patch.setattr(ternarizing, "replace", stopping)
        patch.setattr(Running, "stopped", lambda run: None)
        assert command(*options, "--out", tmp_path / "resumed").status == 1
    told = command(*options, "--out", tmp_path / "resumed")
    assert told.status == 2 and "add --resume" in told.err
    told = command("ternarize", base, text, "--steps", 9, "--resume", "--out", tmp_path / "resumed")
    assert told.status == 2 and "the run in this folder has" in told.err and "steps 5" in told.err
    assert command(*options, "--resume", "--out", tmp_path / "resumed").status == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "resumed"))
    assert one == other


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--budget", "1s"), "the budget of 1s holds 0 steps"),
        (("--group", 24), "24 is no multiple of 16"),
        (("--steps", 0), "--steps: 0 is too small"),
    ],
)
def test_what_cannot_be_is_refused(base: Path, text: Path, tmp_path: Path, options: Any, line: str) -> None:
    told = command("ternarize", base, text, *options, "--out", tmp_path / "out")
    assert told.status == 2 and line in told.err, told.err
    assert not (tmp_path / "out").exists()


def test_rows_of_text_are_text_and_rows_of_answers_are_rows(tmp_path: Path) -> None:
    text = tiny_comparison.write_rows(tmp_path / "text.jsonl", [{"text": f"Number {place}."} for place in range(30)])
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(24, "please"))
    (tmp_path / "plain.txt").write_text("Words.")
    assert [found is None for found in map(_examples, (text, rows, tmp_path / "plain.txt", tmp_path))] == [
        True, False, True, True,
    ]  # fmt: skip


def test_without_text_there_is_nothing_to_train_on(base: Path, tmp_path: Path) -> None:
    told = command("ternarize", base, "--out", tmp_path / "out")
    assert told.status == 2 and "name a text" in told.err
    (tmp_path / "short.txt").write_text("Too short.")
    told = command("ternarize", base, tmp_path / "short.txt", *STEPS, "--out", tmp_path / "out")
    assert told.status == 2 and "fewer than two windows" in told.err


def test_the_loss_is_the_divergence_with_its_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = ((7, 8), (30, 8), (7, 6), (30, 6))
    hidden, weight, wanted, teacher = (torch.randn(*size, generator=draw) for size in sizes)
    leaves = [(hidden.clone().requires_grad_(True), weight.clone().requires_grad_(True)) for _ in range(2)]
    ours = head_divergence(*leaves[0], wanted, teacher)
    p, log_q = (wanted @ teacher.T).softmax(-1), (leaves[1][0] @ leaves[1][1].T).log_softmax(-1)
    theirs = (p * (p.log() - log_q)).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (ours / 3).backward()
    (theirs / 3).backward()
    for mine, other in zip(*leaves):
        assert torch.allclose(mine.grad, other.grad, atol=1e-5)
    assert head_divergence(wanted, teacher, wanted, teacher).item() == pytest.approx(0, abs=1e-5)
