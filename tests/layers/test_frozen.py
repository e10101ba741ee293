"""A frozen base in codes of 8 bits: products and gradients near those of floats, and training as good."""

from pathlib import Path
from typing import Any

import native_models
import pytest
import torch
from each_isa import printed_on
from refusals import assert_refused
from small_llama import Stop, stopping_at
from torch import Tensor, nn
from training_families import CONFIGS, family_model, training_rows

from riyaz import native
from riyaz import train as train_module
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.events import Event, Listen, Note, quiet
from riyaz.layers.attention import packed
from riyaz.layers.fast.masters import Masters
from riyaz.layers.loss import head_loss
from riyaz.layers.swaps import frozen, lora
from riyaz.layers.swaps.frozen import FrozenLinear
from riyaz.methods.fitting import weights
from riyaz.models import load, load_frozen
from riyaz.sources import open_source
from riyaz.train import TrainPlan, train

# Of the norm of a result. A code is off by up to 1/254 of the largest of 64 numbers, the weights' twice (they are
# encoded for 32 columns and again for 64), and random errors add up by their squares.
ERROR = 0.015
BF16 = 2**-8  # more in bfloat16
HEAD_ERROR = 0.02  # of the gradient through a softmax, whose numbers differ more in size
# Nats per answer token, of any of 50 steps and on average: tiny models take on more of the rounding than real ones do.
LOSS, MEAN_LOSS = 0.25, 0.06
RATES = {"lora": 1e-2, "prompt_tuning": 3e-2}
SHAPES = [(1, 64, 48), (7, 100, 33), (33, 17, 5), (50, 576, 192), (600, 40, 70)]  # T, in, out
PRODUCTS = """
import torch
from riyaz import native
from riyaz.layers.swaps.frozen import FrozenLinear
print(native.isa())
for T, cols, rows in {shapes}:
    torch.manual_seed(T)
    linear, x = torch.nn.Linear(cols, rows, bias=False), torch.randn(T, cols)
    exact, found = linear(x).detach(), FrozenLinear(linear).multiply(x)
    print(((found - exact).norm() / exact.norm()).item())
"""


def off(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference as a part of that of what is wanted."""
    return float((found.detach().float() - wanted.detach().float()).norm() / wanted.detach().float().norm())


def linear_of(cols: int, rows: int, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(cols)
    return nn.Linear(cols, rows, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("T", "cols", "rows"), SHAPES)
def test_products_and_gradients_are_near_those_of_floats(T: int, cols: int, rows: int, dtype: torch.dtype) -> None:
    linear = linear_of(cols, rows, bias=True, dtype=dtype)
    coded = FrozenLinear(linear)
    x, y = (torch.randn(T, cols).to(dtype).requires_grad_() for _ in range(2))
    y.data = x.data.clone()
    wanted, found = linear(x), coded(y)
    grad = torch.randn(T, rows).to(dtype)
    wanted.backward(grad)
    found.backward(grad)
    allowed = ERROR + (BF16 if dtype == torch.bfloat16 else 0)
    assert x.grad is not None and y.grad is not None and found.dtype == y.grad.dtype == dtype
    assert 0 < off(found, wanted) <= allowed and 0 < off(y.grad, x.grad) <= allowed


def test_products_of_every_instruction_set() -> None:
    found = printed_on(native.isas(), PRODUCTS.format(shapes=SHAPES))
    assert found.keys() == set(native.isas())
    for isa, lines in found.items():
        chosen, *errors = lines.split()
        assert chosen == isa and len(errors) == len(SHAPES)
        assert all(0 < float(error) <= ERROR for error in errors), (isa, errors)


def test_a_token_has_the_same_bits_among_others_and_on_three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    coded, x = FrozenLinear(linear_of(96, 40)), torch.randn(600, 96)
    whole = coded.multiply(x)
    order = torch.randperm(600)
    assert torch.equal(coded.multiply(x[order]), whole[order])
    assert torch.equal(coded.multiply(x[599:]), whole[599:])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # which the kernels take as theirs
    assert torch.equal(coded.multiply(x), whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stays_visible(value: float) -> None:
    x = torch.randn(5, 64)
    x[3, 10] = value
    out = FrozenLinear(linear_of(64, 32)).multiply(x)
    assert not out[3].isfinite().any() and out[[0, 1, 2, 4]].isfinite().all()
    linear = linear_of(64, 32)
    linear.weight[2, 2] = value
    with assert_refused("a weight of the base is not a finite number"):
        FrozenLinear(linear)


def test_a_large_matrix_is_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x, grad = linear_of(96, 40), torch.randn(20, 96), torch.randn(20, 40)
    whole = FrozenLinear(linear)
    monkeypatch.setattr(frozen, "NUMBERS", 700)  # 7 rows of W, 17 of its transpose
    parts = FrozenLinear(linear)
    assert torch.equal(parts.multiply(x), whole.multiply(x)) and torch.equal(parts.gradient(grad), whole.gradient(grad))


@pytest.mark.parametrize("kind", ["llama-biases", "gpt2", "qwen2", "gemma3"])
def test_a_base_that_is_encoded_as_it_is_read_is_the_same(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(frozen.VARIABLE, "int8")
    source = open_source(native_models.write(kind, tmp_path))
    whole = load(source, torch.float32)
    frozen.encode(whole)
    floats = []

    def counted(model: nn.Module, name: str, weight: Tensor) -> None:
        put(model, name, weight)
        floats.append(sum(type(module) is nn.Linear and not module.weight.is_meta for module in model.modules()))

    put = frozen.put_frozen
    monkeypatch.setattr(frozen, "put_frozen", counted)
    streamed = load_frozen(source, torch.float32)
    tokens = torch.arange(5, 25)
    results = [model.head(model(tokens, torch.arange(20), packed([20]))).detach() for model in (whole, streamed)]
    assert torch.equal(*results) and floats and not any(floats), "no linear had floats beside the codes"
    assert [name for name, _ in streamed.named_parameters()] == [name for name, _ in whole.named_parameters()]
    assert not any(parameter.requires_grad for parameter in streamed.parameters())


def test_gradients_of_lora_are_near_those_beside_floats() -> None:
    found = []
    for coded in (False, True):
        linear, x = linear_of(96, 48), torch.randn(30, 96, generator=torch.Generator().manual_seed(1)).requires_grad_()
        layer = lora.LoRALinear(FrozenLinear(linear) if coded else linear, 4, 2.0)
        for part, seed in ((layer.lora_A, 2), (layer.lora_B, 3)):
            nn.init.normal_(part, generator=torch.Generator().manual_seed(seed))
        out = layer(x)
        out.backward(torch.randn(30, 48, generator=torch.Generator().manual_seed(4)))
        found.append((out, x.grad, layer.lora_A.grad, layer.lora_B.grad))
        with lora.enabled(layer, False):
            assert torch.equal(layer(x), layer.base(x)), "off, it is the base"
    for wanted, ours in zip(*found, strict=True):
        assert off(ours, wanted) <= ERROR


def coded_loras(cols: int, rows: tuple[int, ...], rank: int, dtype: torch.dtype) -> list[lora.LoRALinear]:
    """LoRAs of the same input beside codes; B is not zero."""
    layers = []
    for i, count in enumerate(rows):
        base = FrozenLinear(linear_of(cols, count, bias=i == 0, dtype=dtype))
        layers.append(lora.LoRALinear(base, rank, 1.7).to(dtype))
        for part in (layers[-1].lora_A, layers[-1].lora_B):
            nn.init.normal_(part, std=0.1, generator=torch.Generator().manual_seed(i))
    return layers


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(("T", "cols", "rows", "rank"), [(1, 64, (48,), 16), (7, 99, (33, 5), 3), (601, 40, (70,), 17),
                                                         (50, 576, (576, 192, 192), 8)])  # fmt: skip
def test_loras_beside_codes_are_those_of_torch(
    T: int, cols: int, rows: tuple[int, ...], rank: int, dtype: torch.dtype, tolerance: float
) -> None:
    found = []
    for function in (lora._LoRAs, lora._NativeLoRAs):
        layers, generator = coded_loras(cols, rows, rank, dtype), torch.Generator().manual_seed(1)
        x = torch.randn(T, cols, generator=generator).to(dtype).requires_grad_()
        a, b = [layer.lora_A for layer in layers], [layer.lora_B for layer in layers]
        coded = [[matrix.detach() for matrix in a + b], []] if function is lora._NativeLoRAs else []
        outs = function.apply(x, layers, *coded, *a, *b)
        # a gradient in the middle of wider lines, as that of a gate is
        grads = [torch.randn(T, len(matrix) + 6, generator=generator).to(dtype)[:, 4:-2] for matrix in b]
        torch.autograd.backward(outs, grads)
        found.append([*outs, x.grad, *(matrix.grad for matrix in a + b)])
    for wanted, ours in zip(*found, strict=True):
        assert ours.dtype == wanted.dtype and off(ours, wanted) <= tolerance


def test_loras_beside_codes_add_their_gradients_to_the_optimisers_sums() -> None:
    layer = coded_loras(64, (48,), 4, torch.float32)[0].requires_grad_(True)
    x, grad = torch.randn(9, 64), torch.randn(9, 48)
    layer(x).backward(grad)
    wanted = [part.grad.clone() for part in (layer.lora_A, layer.lora_B)]
    layer.lora_A.grad = layer.lora_B.grad = None
    masters = Masters(layer, torch.bfloat16)
    for _ in range(2):
        layer(x.bfloat16()).backward(grad.bfloat16())
    for name, once in zip(("lora_A", "lora_B"), wanted):
        weight = layer.get_parameter(name)
        assert off(masters.sums.of(weight), 2 * once) <= 2 * BF16 and weight.grad is None
    masters.detach()
    assert layer.gradient_sums is None
    layer(x).backward(grad)
    assert layer.lora_A.grad is not None


def test_loras_of_no_tokens() -> None:
    layer, x = coded_loras(64, (48,), 4, torch.float32)[0], torch.zeros(0, 64, requires_grad=True)
    layer(x).sum().backward()
    assert layer(x).shape == (0, 48) and x.grad is not None and x.grad.shape == x.shape
    assert not layer.lora_A.grad.any() and not layer.lora_B.grad.any()


def test_gradients_of_loras_are_summed_in_float32_whatever_torchs_default() -> None:
    norms = []
    for default in (torch.float32, torch.float64, torch.bfloat16):
        layer, x = coded_loras(64, (48,), 4, torch.float32)[0], torch.ones(3, 64)
        torch.set_default_dtype(default)
        try:
            layer(x).sum().backward()
        finally:
            torch.set_default_dtype(torch.float32)
        norms.append(layer.lora_A.grad.norm().item())
    assert norms[0] > 0 and norms == [norms[0]] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loras_beside_codes_answer_in_inference_mode(dtype: torch.dtype) -> None:
    layer, x = coded_loras(64, (48,), 4, torch.float32)[0], torch.randn(3, 64).to(dtype)
    wanted = layer(x).detach()
    with torch.inference_mode():  # the rounded A and B are made here, and count no changes
        assert torch.equal(layer(x), wanted)


def test_a_gradient_of_gradients_is_refused() -> None:
    layer, x = coded_loras(64, (48,), 4, torch.float32)[0], torch.ones(3, 64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


def test_a_weight_that_changes_before_backward_is_refused() -> None:
    layer = coded_loras(64, (48,), 4, torch.float32)[0]
    out = layer(torch.ones(3, 64))
    with torch.no_grad():
        layer.lora_B.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


@pytest.mark.parametrize(("change", "message"), [
    ({"matrices": [None]}, "a matrix is none"), ({"x": torch.ones(5, 63)}, "sizes differ"),
    ({"x": torch.ones(5, 64).bfloat16()}, "types differ"), ({"y": [torch.ones(5, 9)]}, "sizes differ"),
    ({"y": [torch.ones(8, 5).T]}, "not contiguous"), ({"scales": []}, "other tensors"),
    ({"low": torch.ones(5, 15)}, "sizes differ"), ({"a": [torch.ones(64)]}, "no matrix"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"matrices": [native.extension().FrozenCodes(8, 64)], "x": torch.ones(5, 64),
                             "a": [torch.ones(4, 64)], "b": [torch.ones(8, 4)], "scales": [1.0],
                             "y": [torch.ones(5, 8)], "low": torch.ones(5, 16), "threads": 0}  # fmt: skip
    native.extension().lora(**given)
    with pytest.raises(ValueError, match=message):
        native.extension().lora(**(given | change))


@pytest.mark.parametrize("first", [-1, 1, 100, 2**31 - 1])
def test_rows_beyond_a_matrix_of_codes_are_refused(first: int) -> None:
    codes = native.extension().FrozenCodes(8, 64)
    with pytest.raises(ValueError, match="the shape does not fit"):
        codes.fill(first, torch.ones(8, 64), 1)


@pytest.mark.parametrize("cap", [None, 20.0])
def test_the_loss_of_a_head_in_codes(cap: float | None) -> None:
    head, labels = linear_of(64, 500), torch.arange(40)
    x, y = (torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    wanted, found = head_loss(x, head.weight, labels, cap), head_loss(y, FrozenLinear(head), labels, cap)
    (wanted / 3).backward()
    (found / 3).backward()
    assert x.grad is not None and y.grad is not None
    assert 0 < abs(found.item() / wanted.item() - 1) <= ERROR and 0 < off(y.grad, x.grad) <= HEAD_ERROR


def trained(model: Any, method: str, folder: Path, listen: Listen = quiet, **changes: Any) -> list[float]:
    """The losses of all steps of a run, then of its validations."""
    plan = {"steps": 50, "learning_rate": RATES[method], "batch_size": 4, "validate_every": 25, "micro_tokens": 64,
            "compute": "float32", "seed": 1}  # fmt: skip
    state = train(model, training_rows(), training_rows()[::3], TrainPlan(**(plan | changes)), folder, listen)
    of_steps = [entry["loss"] for entry in state.history]
    return of_steps + [entry["valid_loss"] for entry in state.history if "valid_loss" in entry]


@pytest.mark.grid
@pytest.mark.parametrize("method", RATES)
@pytest.mark.parametrize("family", CONFIGS)
def test_fifty_steps_are_as_good_as_those_of_floats(
    family: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for choice in ("exact", "int8"):
        monkeypatch.setenv(frozen.VARIABLE, choice)
        model = family_model(family, method)
        frozen.encode(model)
        coded = [module for module in model.modules() if isinstance(module, FrozenLinear)]
        assert bool(coded) == (choice == "int8") and not (coded and any(type(m) is nn.Linear for m in model.modules()))
        found.append(torch.tensor(trained(model, method, tmp_path / choice)))
    exact, ours = found
    assert exact[-1] < 0.95 * exact[0], "it learns"
    difference = (exact - ours).abs()
    print(f"{family} {method}: {difference.max():.2g}, {difference.mean():.2g} of {exact[0]:.2f} to {exact[-1]:.2f}")
    assert 0 < difference.max() <= LOSS and difference.mean() <= MEAN_LOSS, f"step {difference.argmax() + 1}"


def test_repeated_and_resumed_runs_are_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(frozen.VARIABLE, "int8")
    few = {"steps": 6, "checkpoint_every": 2, "validate_every": 6, "keep_best": False}

    def run(name: str, listen: Listen = quiet) -> list[Tensor]:
        model = family_model("llama", "lora")
        frozen.encode(model)
        trained(model, "lora", tmp_path / name, listen, **few)
        return [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]

    straight, again = run("straight"), run("again")
    with pytest.raises(Stop):
        run("resumed", stopping_at(5))
    for one, two, three in zip(straight, again, run("resumed"), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_a_resumed_run_says_that_its_base_was_exact(tmp_path: Path) -> None:
    few, notes = {"steps": 6, "checkpoint_every": 2, "validate_every": 6}, []

    def listen(event: Event) -> None:
        notes.extend([event.text] if isinstance(event, Note) else [])

    with pytest.raises(Stop):
        trained(family_model("llama", "lora"), "lora", tmp_path, stopping_at(5), **few)
    model = family_model("llama", "lora")
    for name in [name for name, module in model.named_modules() if type(module) is nn.Linear]:
        frozen.swap(model, name, FrozenLinear(model.get_submodule(name)))
    trained(model, "lora", tmp_path, listen, **few)
    ours = native.trainer()
    assert notes == [f"training began with {ours} and continues from step 4 with {ours} with the frozen base in int8; "
                     "its weights will differ a little"]  # fmt: skip


def test_an_adapter_beside_codes_answers_and_is_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(frozen.VARIABLE, "int8")
    model = family_model("llama", "lora")
    for _, layer in lora.lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.1)
    exact = Engine(TorchRunner(lora_merged(model))).logprobs([Request(0, (5, 6, 7))], [(8, 9)])
    frozen.encode(model)
    with assert_refused("a LoRA cannot be merged into a FrozenLinear"):
        lora.merge(model)
    adapter = lora.detach(model)
    engine = Engine(TorchRunner(model))
    engine.load("it", adapter)
    with torch.inference_mode():
        found = engine.logprobs([Request(0, (5, 6, 7), adapter="it")], [(8, 9)])
    assert found[0] == pytest.approx(exact[0], abs=0.1) and list(found[0]) != list(exact[0])


def lora_merged(model: Any) -> Any:
    """The same model with its adapter merged, in other memory."""
    twin = family_model("llama", "lora")
    twin.load_state_dict(model.state_dict())
    lora.merge(twin)
    return twin


def test_where_a_base_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = native.isa().startswith("avx512")
    assert frozen.is_int8() == quick, "where codes are faster"
    for value, wanted in (("exact", False), ("int8", True)):
        monkeypatch.setenv(frozen.VARIABLE, value)
        assert frozen.is_int8() == wanted
        monkeypatch.setenv("RIYAZ_NATIVE", "0")
        assert not frozen.is_int8(), "plain torch has no codes"
        monkeypatch.delenv("RIYAZ_NATIVE")
    monkeypatch.setenv(frozen.VARIABLE, "int4")
    with assert_refused("RIYAZ_FROZEN is 'int4'; set it to exact or int8, or leave it out"):
        frozen.is_int8()


@pytest.mark.parametrize("coded", [False, True])
def test_the_first_loss_may_be_off_by_what_codes_round_and_no_more(
    coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(frozen.VARIABLE, "int8" if coded else "exact")
    model, rows = family_model("llama", "lora"), training_rows()
    frozen.encode(model)
    loss = train_module.answer_loss(model, rows)
    for share, wanted in ((0.0, True), (0.03, True), (0.1, False)):
        monkeypatch.setattr(train_module, "answer_loss", lambda *given, share=share: (1 + share) * loss)
        assert weights._check_step0(model, rows, ())["ok"] == wanted, share
