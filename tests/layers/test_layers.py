"""Every fast function beside its plain twin: values and gradients, awkward sizes, float32 and bfloat16."""

from collections.abc import Callable

import pytest
import torch
from plain_layers import head_loss_plain, packed_plain, rms_norm_plain, rotate_plain, swiglu_plain
from torch import Tensor

from riyaz.layers import attention, functions, loss
from riyaz.layers.attention import packed
from riyaz.layers.loss import head_loss
from riyaz.layers.transformer import rotary

# Largest error of an element, in units of the tensor's largest element (of 0.1 where all but cancel). The twin
# runs in float32 on the same inputs, so bfloat16 is allowed a few of its own roundings (2^-8 each).
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
EPS = 1e-5


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Same shape, and every element near in units of the largest wanted one."""
    assert found.shape == wanted.shape
    error = (found.float() - wanted.float()).abs().max().item()
    scale = wanted.float().abs().max().item()
    assert error <= tolerance * max(scale, 0.1), f"off by {error:g} of {scale:g}"


def assert_twins(fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value and the gradient of every input agree; the plain twin sees the same numbers in float32."""
    tolerance = TOLERANCE[inputs[0].dtype]
    ours = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.clone().float().requires_grad_() for x in inputs]
    found, wanted = fast(*ours), plain(*theirs)
    assert found.dtype == inputs[0].dtype
    assert_near(found, wanted, tolerance)
    grad = noise(99, *found.shape, dtype=found.dtype)
    found.backward(grad)
    wanted.backward(grad.float())
    for x, y in zip(ours, theirs):
        assert x.grad is not None and y.grad is not None and x.grad.dtype == x.dtype
        assert_near(x.grad, y.grad, tolerance)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 3), (17, 33), (64, 8), (5, 576)])
def test_rms_norm(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = noise(1, *shape, dtype=dtype), 1 + noise(2, shape[1], dtype=dtype)

    def fast(x: Tensor, weight: Tensor) -> Tensor:
        return functions.rms_norm(x, weight, EPS)

    assert_twins(fast, lambda x, weight: rms_norm_plain(x, weight, EPS), x, weight)
    assert_twins(fast, lambda x, weight: rms_norm_plain(x, weight, EPS), 1e-3 * x, weight)  # eps counts


def test_rms_norm_of_zeros_is_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = functions.rms_norm(x, torch.ones(8), EPS)
    out.sum().backward()
    assert not out.any() and torch.isfinite(x.grad).all()


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 6), (17, 2, 16), (33, 9, 64)])
def test_rotate(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    angle = (torch.arange(shape[0]) * 37)[:, None] * 1e4 ** -(torch.arange(shape[2] // 2) / (shape[2] // 2))
    cos, sin = rotary(torch.arange(shape[0]) * 37, shape[2], 1e4, dtype)
    assert_twins(
        lambda x: torch.cat(functions.rotate(x, x[:, -1:], cos, sin), 1),
        lambda x: torch.cat((rotate_plain(x, angle), rotate_plain(x[:, -1:], angle)), 1),
        noise(1, *shape, dtype=dtype),
    )


def test_rotation_keeps_lengths_and_products_of_equal_distance() -> None:
    q, k = noise(1, 1, 1, 16).expand(50, 1, 16), noise(2, 1, 1, 16).expand(50, 1, 16)
    cos, sin = rotary(torch.arange(50), 16, 10000.0, torch.float32)
    q, k = (heads[:, 0] for heads in functions.rotate(q, k, cos, sin))
    assert_near(q.norm(dim=-1), q[0].norm().expand(50), 1e-5)
    products = (q[7:] * k[:-7]).sum(-1)  # distance 7 everywhere
    assert_near(products, products[0].expand(43), 1e-4)


def test_far_positions_keep_their_angles_in_bfloat16() -> None:
    far = torch.tensor([8190, 8191])
    cos, _ = rotary(far, 16, 10000.0, torch.bfloat16)
    exact, _ = rotary(far.double(), 16, 10000.0, torch.float64)
    assert (cos.double() - exact).abs().max() < 2**-8


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 96)])
def test_swiglu(shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate, up = 3 * noise(1, *shape, dtype=dtype), noise(2, *shape, dtype=dtype)
    assert_twins(functions.swiglu, swiglu_plain, gate, up)


LENGTHS = [[1], [2], [17], [1, 1, 1], [9] * 5, [5, 1, 1, 17, 2, 40, 40, 40, 1]]  # equal neighbours go together


@DTYPES
@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (9, 3), (4, 4)])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_packed_attention(lengths: list[int], heads: tuple[int, int], dtype: torch.dtype) -> None:
    T, (H, K), D = sum(lengths), heads, 16
    q, k, v = noise(1, T, H, D, dtype=dtype), noise(2, T, K, D, dtype=dtype), noise(3, T, K, D, dtype=dtype)
    assert_twins(
        lambda q, k, v: packed(lengths)(0, q, k, v), lambda q, k, v: packed_plain(lengths)(0, q, k, v), q, k, v
    )


@pytest.mark.parametrize("attention", [packed, packed_plain])
def test_packed_attention_is_causal_softmax_within_each_row(attention: Callable) -> None:
    lengths, (H, K, D) = [3, 1, 6], (4, 2, 8)
    q, k, v = noise(1, 10, H, D), noise(2, 10, K, D), noise(3, 10, K, D)
    found = attention(lengths)(0, q, k, v)
    wanted, start = torch.zeros(10, H, D), 0
    for length in lengths:
        for t in range(start, start + length):
            for h in range(H):
                keys, values = k[start : t + 1, h // (H // K)], v[start : t + 1, h // (H // K)]
                wanted[t, h] = torch.softmax(keys @ q[t, h] / D**0.5, 0) @ values
        start += length
    assert_near(found, wanted, TOLERANCE[torch.float32])


def test_packed_attention_takes_inputs_and_gradients_with_any_strides() -> None:
    lengths = [2, 7]
    qkv = noise(1, 9, 8, 16)
    grads = []
    for make in (packed, packed_plain):
        whole = qkv.clone().requires_grad_()
        out = make(lengths)(0, whole[:, :4], whole[:, 4:6], whole[:, 6:])  # views of one product
        out.sum().backward()  # an expanded gradient: all strides are 0
        grads.append(whole.grad)
    assert_near(grads[0], grads[1], TOLERANCE[torch.float32])


CHUNK, VOCABULARY = 8, 37


@pytest.fixture
def small_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", CHUNK)


@DTYPES
@pytest.mark.parametrize("trainable", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 23])
def test_head_loss(small_chunk: None, count: int, trainable: tuple[bool, bool], dtype: torch.dtype) -> None:
    hidden, weight = noise(1, count, 12, dtype=dtype), noise(2, VOCABULARY, 12, dtype=dtype)
    labels = (torch.arange(count) * 7) % VOCABULARY
    ours = [x.clone().requires_grad_(on) for x, on in zip((hidden, weight), trainable)]
    theirs = [x.clone().float().requires_grad_(on) for x, on in zip((hidden, weight), trainable)]
    found, wanted = head_loss(*ours, labels), head_loss_plain(*theirs, labels)
    assert_near(found, wanted, TOLERANCE[dtype])
    (found / 3).backward()
    (wanted / 3).backward()
    for x, y, on in zip(ours, theirs, trainable):
        assert (x.grad is not None) == on
        if on:
            assert_near(x.grad, y.grad, TOLERANCE[dtype])


def test_head_loss_is_finite_where_the_odds_are_not() -> None:
    hidden, weight = torch.tensor([[1e4]], requires_grad=True), torch.tensor([[1.0], [-1.0]])
    found = head_loss(hidden, weight, torch.tensor([1]))
    found.backward()
    assert found.item() == pytest.approx(2e4) and torch.isfinite(hidden.grad).all()


def test_head_loss_makes_no_gradient_when_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a validation loss pays for a gradient")

    monkeypatch.setattr(Tensor, "scatter_add_", refuse)
    monkeypatch.setattr(Tensor, "addmm_", refuse)
    hidden, weight = noise(1, 5, 12), noise(2, VOCABULARY, 12).requires_grad_()
    with torch.no_grad():
        found = head_loss(hidden, weight, torch.arange(5))
    assert_near(found, head_loss_plain(hidden, weight, torch.arange(5)), TOLERANCE[torch.float32])


@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (9, 3)])
@pytest.mark.parametrize("shape", [(2, 1), (3, 17), (12, 64)])  # the last are too long for their weights to be kept
def test_equal_rows_in_bfloat16_go_through_whole_products(
    shape: tuple[int, int], heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (B, length), (H, K), D = shape, heads, 16
    monkeypatch.setattr(attention, "_flash", None)  # the other way would fail
    q, k, v = (noise(seed, B * length, n, D, dtype=torch.bfloat16) for seed, n in ((1, H), (2, K), (3, K)))
    rows = [length] * B
    assert_twins(lambda q, k, v: packed(rows)(0, q, k, v), lambda q, k, v: packed_plain(rows)(0, q, k, v), q, k, v)


def test_what_adaptation_reads_goes_through_flash() -> None:
    long = attention.SHORT + 1
    for rows in (packed([5]), packed([5, 6]), packed([5, 5]).behind(9), packed([long, long])):
        assert not rows.equal_short_rows()
    assert packed([5, 5]).equal_short_rows() and packed([attention.SHORT] * 2).equal_short_rows()


def test_weights_are_kept_where_they_are_no_more_numbers_than_q_k_and_v(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = attention._attention_weights, []
    monkeypatch.setattr(attention, "_attention_weights", lambda q, k: made.append(q.shape) or make(q, k))
    for length, times in ((48, 1), (49, 2)):  # three matrices of 16 numbers a head and token
        q, k, v = (noise(seed, 2 * length, 4, 16, dtype=torch.bfloat16).requires_grad_() for seed in (1, 2, 3))
        packed([length] * 2)(0, q, k, v).float().sum().backward()
        assert made == [(8, length, 16)] * times
        made.clear()
