"""Training that goes on from an artifact: what the model begins as, its first loss, its bits, and what it writes."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_context import PLAN, TASK, examples, fit_context
from peft import PeftModel
from small_llama import attach
from test_lora import LOGITS, logits_of, open_model, open_oracle, oracle_logits

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz import train as training
from riyaz.adapters import Adapter, Pair, peft
from riyaz.artifact import LABELS, Artifact, BaseModel, WeightsPart
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.events import Event, Progress
from riyaz.families import describe
from riyaz.layers.swaps import lora as loras
from riyaz.methods import dpo, kto, lora, orpo
from riyaz.methods.fitting import weights
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.methods.fitting.choices import answer_limit
from riyaz.methods.fitting.label_rows import put_label_head, with_label_head
from riyaz.methods.fitting.start import Start, shape_of
from riyaz.models import load
from riyaz.preferences import dpo as dpo_objective
from riyaz.train import micro_batches

pytestmark = pytest.mark.usefixtures("in_float32")
WIDER = replace(TASK, labels=("billing", "delivery", "opening", "refund"))
SHORT = Task("short", (), "exact_match", "Answer the question in a few words.", "")
ONE = replace(PLAN, learning_rates=(1e-3,), opening=0)
FILES = ("adapter_model.safetensors", "adapter_config.json", LABELS)


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path)


def written(context: Context, fitted: Fitted, folder: Path, **fields: Any) -> Start:
    """The artifact of a fit, from which another may go on."""
    source = context.source
    base = BaseModel(source.name, str(source.path), source.sha256(), 1, context.tokenizer.template)
    document = Artifact("lora", fitted.text, fitted.weights, base, context.task, **fields)
    artifacts.write(folder, document, fitted.files)
    return Start("first", folder, Artifact.read(folder))


def going_on(context: Context, folder: Path) -> Context:
    """The context, with an artifact of rank 4 that has learned its rows; further rows are other ones."""
    first = replace(context, folder=folder / "fit", hand=replace(context.hand, rank=4, alpha=12),
                    arm=replace(ONE, learning_rates=(5e-3,)))  # fmt: skip
    (folder / "fit").mkdir()
    start = written(first, lora.fit(first), folder / "first")
    return replace(context, folder=folder / "second", start=start, train=examples(24, "now"))


@pytest.fixture
def begun(context: Context, tmp_path: Path) -> Context:
    """Training that goes on from an artifact which has learned the three labels."""
    return going_on(context, tmp_path)


def own_pairs(begun: Context) -> dict[str, Pair]:
    assert begun.start is not None
    return dict(begun.start.adapter(begun.source).pairs)


def same(some: Any, others: Any) -> bool:
    return some.keys() == others.keys() and all(
        np.array_equal(some[name].a, others[name].a) and np.array_equal(some[name].b, others[name].b)
        and some[name].scale == others[name].scale for name in some
    )  # fmt: skip


def test_the_model_begins_with_the_artifacts_lora_and_its_rows_of_labels(begun: Context) -> None:
    assert begun.start is not None
    model = with_label_head(begun, lora.build)(begun)
    assert same(loras.adapter_of(model.base).pairs, own_pairs(begun))
    assert all(pair.rank == 4 and pair.scale == 3 and pair.b.any() for pair in own_pairs(begun).values())
    head = begun.start.label_rows(TASK, begun.source)
    assert np.array_equal(model.rows(), np.stack(head))  # type: ignore[arg-type]
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"label_head.weight"} | {
        f"base.{name}.lora_{half}" for name in own_pairs(begun) for half in "AB"
    }, "the same weights train as in a fresh run"


def test_a_new_label_begins_as_in_a_fresh_run_and_the_others_stay(
    begun: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", "exact")  # the fresh model has no codes
    wider = replace(begun, task=WIDER, prompt_text=instruction_only(WIDER))
    rows = with_label_head(wider, lora.build)(wider).rows()
    fresh = put_label_head(replace(wider, start=None), load(begun.source, torch.float32)).rows()
    assert begun.start is not None
    known = begun.start.label_rows(TASK, begun.source)
    assert np.array_equal(rows[[0, 1, 3]], np.stack(known)) and np.array_equal(rows[2], fresh[2])  # type: ignore[arg-type]
    assert not np.array_equal(rows[0], fresh[0])


def test_the_first_loss_is_the_artifacts_not_the_bases(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = going_on(replace(context, task=SHORT, prompt_text=instruction_only(SHORT)), tmp_path)
    base = lora.fit(replace(begun, start=None, arm=ONE, folder=begun.folder / "fresh")).checks["step0_loss"]
    check = lora.fit(replace(begun, arm=ONE)).checks["step0_loss"]
    assert check["ok"] and "base" not in check and check["training"] == pytest.approx(check["artifact"], abs=1e-4)
    assert abs(check["artifact"] - base["base"]) > 0.06 * base["base"], "else the next lines show nothing"
    whole: Callable[[Context], Any] = lora.build
    monkeypatch.setattr(lora, "build", lambda context: whole(replace(context, start=None)))
    failed = lora.fit(replace(begun, arm=ONE, folder=begun.folder / "again")).checks["step0_loss"]
    assert not failed["ok"] and "more than the 5%" in failed["warning"]


def test_the_model_is_whole_after_the_first_loss(begun: Context) -> None:
    model = lora.build(begun)
    head = model.get_submodule("lm_head")
    before = [id(layer) for _, layer in loras.lora_layers(model)]
    rows = [Row((1, 2, 3), (4, 5))]
    loss = training.answer_loss(model, rows)
    assert begun.start is not None
    weights._check_step0(model, rows, (), begun.start.adapter(begun.source))
    assert [id(layer) for _, layer in loras.lora_layers(model)] == before
    assert training.answer_loss(model, rows) == loss and model.get_submodule("lm_head") is head


def test_every_opening_and_the_training_on_all_rows_begin_with_the_artifact(
    begun: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    whole = training.train

    def watched(model: Any, *rest: Any, **more: Any) -> Any:
        seen.append(same(loras.adapter_of(model.base).pairs, own_pairs(begun)))
        return whole(model, *rest, **more)

    monkeypatch.setattr(training, "train", watched)
    fitted = lora.fit(replace(begun, arm=replace(PLAN, refit=True)))
    assert "refit_steps" in fitted.chosen and seen == [True] * 4, "two rates, the run, the training on all rows"
    assert all(check["ok"] for check in fitted.checks.values())
    assert (fitted.chosen["rank"], fitted.chosen["alpha"]) == (4, 12)


def contents(fitted: Fitted) -> dict[str, bytes]:
    return {name: Path(str(fitted.files[name])).read_bytes() for name in FILES}


def test_the_same_bits_twice_and_after_a_stop(begun: Context, tmp_path: Path) -> None:
    whole = contents(lora.fit(replace(begun, folder=tmp_path / "one")))
    assert contents(lora.fit(replace(begun, folder=tmp_path / "two"))) == whole
    other = contents(lora.fit(replace(begun, folder=tmp_path / "fresh", start=None)))
    assert other[FILES[0]] != whole[FILES[0]]

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "train" and event.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lora.fit(replace(begun, folder=tmp_path / "stopped", listen=stop))
    assert contents(lora.fit(replace(begun, folder=tmp_path / "stopped"))) == whole


def test_peft_opens_what_is_written(begun: Context, model_folder: Path) -> None:
    fitted = lora.fit(replace(begun, arm=ONE))
    folder = Path(str(fitted.files["adapter_config.json"])).parent
    config = adapters.folder.read_config(folder / adapters.CONFIG)
    assert (config["r"], config["lora_alpha"]) == (4, 12) and not {"rank_pattern", "alpha_pattern"} & config.keys()
    model = open_model(model_folder)
    attach(model, folder)
    theirs = PeftModel.from_pretrained(open_oracle(model_folder), folder)
    assert (logits_of(model) - oracle_logits(theirs)).abs().max() <= LOGITS


def test_layers_of_different_ranks_keep_them(begun: Context, tmp_path: Path) -> None:
    assert begun.start is not None
    pairs = own_pairs(begun)
    first = next(iter(pairs))
    pairs[first] = Pair(pairs[first].a[:2], pairs[first].b[:, :2], 0.7)
    mixed = Adapter(pairs)
    assert shape_of(mixed) == (4, 12, False)
    out = tmp_path / "mixed"
    out.mkdir()
    peft.write(mixed, out, describe(begun.source), base=begun.source.name)
    fitted = Fitted(begun.start.document.text, WeightsPart("lora"), {path.name: path for path in out.iterdir()})
    start = written(begun, fitted, tmp_path / "start")
    folder = tmp_path / "third"
    again = lora.fit(replace(begun, start=start, folder=folder, arm=replace(ONE, steps=1, learning_rates=(1e-9,))))
    assert again.weights.label_head, "an artifact without a head gets a fresh one"
    kept = adapters.read(folder / "out", describe(begun.source)).pairs
    assert {name: (pair.rank, pytest.approx(pair.scale)) for name, pair in kept.items()} == {
        name: (pair.rank, pair.scale) for name, pair in pairs.items()
    }


def test_an_answer_may_be_as_long_as_the_artifacts(begun: Context, tmp_path: Path) -> None:
    assert begun.start is not None
    short = replace(begun, task=SHORT, prompt_text=instruction_only(SHORT))
    usual = answer_limit(replace(short, start=None))
    for limit, wanted in ((usual + 30, usual + 30), (usual - 1, usual)):
        document = replace(begun.start.document, max_new_tokens=limit)
        assert answer_limit(replace(short, start=replace(begun.start, document=document))) == wanted
    own = replace(short, task=replace(SHORT, max_new_tokens=5))
    assert answer_limit(own) == 5, "the user's own"


# pairs


def test_dpo_compares_with_the_artifact_not_with_the_base(begun: Context) -> None:
    rows = [Row((1, 2, 3 + place), (4, 5), rejected=(6, 7, 8)) for place in range(4)]
    model, objective = lora.build(begun), dpo_objective()

    def loss() -> float:
        with torch.no_grad():
            of_batch = objective(model, rows, 64)
            return sum(of_batch(model, micro, None).item() for micro in micro_batches(rows, 64))  # type: ignore[arg-type]

    assert loss() == pytest.approx(4 * math.log(2), rel=1e-5), "both are the same before training"
    for _, layer in loras.lora_layers(model):
        layer.lora_B.data.mul_(4)
    moved = loss()
    assert abs(moved - 4 * math.log(2)) > 1e-3
    changed = [layer.lora_B.detach().clone() for _, layer in loras.lora_layers(model)]
    with loras.before_training(model):
        assert same(loras.adapter_of(model).pairs, own_pairs(begun))
    assert all(torch.equal(layer.lora_B, b) for (_, layer), b in zip(loras.lora_layers(model), changed))
    fresh = lora.build(replace(begun, start=None))
    with loras.before_training(fresh):
        assert not any(layer.enabled for _, layer in loras.lora_layers(fresh))
    assert all(layer.enabled for _, layer in loras.lora_layers(fresh))


@pytest.mark.parametrize("method", [dpo, orpo, kto])
def test_pairs_are_learned_from_an_artifact(method: Any, begun: Context) -> None:
    task = Task("free", (), "preferred", "", "")
    rows = {name: tuple(replace(row, rejected="please change my card") for row in getattr(begun, name))
            for name in ("train", "valid")}  # fmt: skip
    pairs = replace(begun, task=task, prompt_text=instruction_only(task), arm=ONE, **rows)
    fitted = method.fit(pairs)
    assert all(check["ok"] for check in fitted.checks.values()) and "artifact" in fitted.checks["step0_loss"]
