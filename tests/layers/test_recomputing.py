"""Backward computes norms and gates again instead of keeping them: the same bits, and less is kept."""

import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from training_families import family_model, training_rows

from riyaz.events import quiet
from riyaz.layers import functions
from riyaz.layers.fast import recompute
from riyaz.layers.fast.recompute import Recipe, Recipes, recomputable, recomputing
from riyaz.train import TrainPlan, answer_nats, micro_batches, train

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma3")
STORED = 0.8  # at most, of the bytes that are kept without; norms and gates are a third of this model's activations


@pytest.fixture(autouse=True)
def of_any_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these tests are so small that nothing would be computed again."""
    if request.node.name != "test_what_is_small_is_kept":
        monkeypatch.setattr(recompute, "SMALL", 0)
    if request.node.name != "test_the_first_results_of_a_pass_are_kept":
        monkeypatch.setattr(recompute, "STORED", 0)


def recipes() -> dict[int, Recipe]:
    """Those of the results that are alive."""
    assert recompute._current.recipes is not None
    return recompute._current.recipes.of


def gradients(model: Any, context: Any) -> list[Tensor]:
    """Of every trained parameter, by one batch of rows."""
    (rows,) = micro_batches(training_rows(8), 2048)
    with context:
        answer_nats(model, rows).backward()
    found = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    return found


@pytest.mark.grid(2)
@pytest.mark.parametrize("switch", ["0", "1"], ids=["torch", "native"])
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", GATED)
def test_gradients_are_the_same_bits(family: str, method: str, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_NATIVE", switch)
    for dtype in (torch.float32, torch.bfloat16):
        model = family_model(family, method, dtype)
        kept, made = gradients(model, nullcontext()), gradients(model, recomputing(recompute.SMALL))
        assert all(torch.equal(a, b) for a, b in zip(kept, made, strict=True))
    assert recompute._current.recipes is None, "nothing is kept behind the block"


@pytest.mark.parametrize("switch", ["0", "1"], ids=["torch", "native"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_less_is_kept(method: str, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_NATIVE", switch)
    model = family_model("llama", method)
    sizes: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        if not (x.is_leaf or isinstance(x, torch.nn.Parameter)):
            sizes[x.data_ptr()] = x.nbytes
        return x.detach()

    gradients(model, saved_tensors_hooks(count, lambda x: x))
    whole = sum(sizes.values())
    sizes.clear()
    pack = Recipes.pack

    def count_kept(recipes: Recipes, x: Tensor) -> Any:
        kept = pack(recipes, x)
        if not isinstance(kept, Recipe):
            count(x)
        return kept

    monkeypatch.setattr(Recipes, "pack", count_kept)
    gradients(model, recomputing(recompute.SMALL))
    assert 0 < sum(sizes.values()) <= STORED * whole


def test_a_result_changed_in_place_is_kept() -> None:
    x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    for context in (nullcontext(), recomputing(recompute.SMALL)):
        with context:
            out = functions.rms_norm(x, torch.ones(8), 1e-5).mul_(2)
            (out @ weight).sum().backward()
        wanted, weight.grad = (weight.grad, None) if weight.grad is not None else (None, None)
        assert wanted is not None and torch.equal(wanted, out.detach().sum(0)[:, None].expand(8, 8))


def test_training_recomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    result = Recipe.result
    monkeypatch.setattr(Recipe, "result", lambda recipe: made.append(recipe) or result(recipe))
    rows = training_rows(8)
    train(family_model("llama", "lora"), rows, rows[:2], TrainPlan(steps=1, learning_rate=1e-3), tmp_path, quiet)
    assert len(set(made)) == 2 * 3, "two norms and a gate in each of two layers"


def test_what_is_small_is_kept() -> None:
    gate = torch.ones(128, 2048, requires_grad=True)
    with recomputing(recompute.SMALL):
        large, small = functions.swiglu(gate, gate), functions.swiglu(gate[1:], gate[1:])
        assert list(recipes()) == [id(large)] != [id(small)], "a megabyte"


def test_the_recipe_of_a_result_that_no_one_holds_is_freed() -> None:
    x = torch.ones(4, 8, requires_grad=True) * 1
    alive = weakref.ref(x)
    with recomputing(recompute.SMALL):
        out = functions.rms_norm(x, torch.ones(8), 1e-5).detach()
        assert recipes() == {}
        del x
        assert alive() is None and out.shape == (4, 8), "with its inputs"


def test_graphs_of_small_results_have_no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Tensor] = []
    monkeypatch.setattr(Recipes, "pack", lambda recipes, x: called.append(x) or (x, x._version))
    for largest, hooked in ((recompute.SMALL - 1, False), (recompute.SMALL, True)):
        with recomputing(largest):
            functions.swiglu(torch.ones(2, 2, requires_grad=True), torch.ones(2, 2)).sum().backward()
        assert bool(called) == hooked


def test_the_widest_input_is_that_of_any_linear() -> None:
    model = family_model("llama", "lora")
    assert recompute.widest(model) == max(model.config.intermediate_size, model.config.hidden_size)


def test_the_first_results_of_a_pass_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit into STORED, in every pass anew; a result that several linears take counts once."""
    made: list[Any] = []
    result = Recipe.result
    monkeypatch.setattr(Recipe, "result", lambda recipe: made.append(recipe) or result(recipe))
    monkeypatch.setattr(recompute, "STORED", 2 * 4 * 8 * 4 + 4)  # of three results of 4 × 8 floats
    weight = torch.randn(8, 8, requires_grad=True)
    for passes in (1, 2):
        with recomputing(recompute.SMALL):
            x = torch.randn(4, 8, requires_grad=True)
            for _ in range(3):
                normed = functions.rms_norm(x, torch.ones(8), 1e-5)
                x = normed @ weight + normed @ weight.T
            x.sum().backward()
        assert len({id(recipe) for recipe in made}) == passes


def test_without_gradients_there_is_no_recipe() -> None:
    with torch.no_grad(), recomputing(recompute.SMALL):
        out = recomputable(functions._SwiGLU, torch.ones(2, 2), torch.ones(2, 2))
        assert recipes() == {} and not out.requires_grad


@pytest.mark.parametrize("switch", ["0", "1"], ids=["torch", "native"])
def test_a_change_of_what_backward_reads_is_refused(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_NATIVE", switch)
    for last in (torch.sin, lambda x: functions.rms_norm(x, torch.ones(8), 1e-5)):
        x, weight = torch.randn(3, 8, requires_grad=True) * 1, torch.randn(8, 8, requires_grad=True)
        with recomputing(recompute.SMALL):
            loss = (last(x) @ weight).sum()
            with torch.no_grad():
                x.mul_(3)
            with pytest.raises(RuntimeError, match="changed in place"):
                loss.backward()
