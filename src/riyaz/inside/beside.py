"""Before and after: the same text through two models, and what an adaptation changed in the weights.

Legend: T tokens, L layers, V vocabulary, r rank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz.adapters import Adapter
from riyaz.adapters.base_shapes import shapes_of
from riyaz.engine.parts import Steps, finished
from riyaz.engine.runner import TokenRun, Whole
from riyaz.errors import RiyazError
from riyaz.families import Family, ModelConfig
from riyaz.inside.reading import Inside
from riyaz.predictor import PromptedModel
from riyaz.sources.tensor_files import float32

PIECE = 2**21  # numbers of a matrix in memory at a time
ROWS = 64  # tokens whose whole distributions are in memory at a time


@dataclass(frozen=True)
class Changed:
    """What changed in one linear: the length of the change ÷ that of the weights, and for a LoRA the singular values of
    B·A, largest first."""

    name: str
    relative: float
    spectrum: tuple[float, ...] = ()


@dataclass(frozen=True)
class Touched:
    """Which parts of a model an adaptation touches."""

    prompt: tuple[str, ...]  # of "instruction", "examples", "passages" those that its own prompt has
    vectors: int  # of a soft prompt
    pairs: int  # linears with a LoRA beside them
    weights: int  # matrices with other numbers
    labels: int  # of a head of labels, which answers in the place of the model's own head


@dataclass(frozen=True, eq=False)
class Difference:
    """How `after` computes otherwise than `before` on the same tokens (T,)."""

    divergence: np.ndarray  # (T,): KL of the next token's distribution after from before, in nats
    # (L + 1,): length of the residual stream's change ÷ the stream's, or ÷ 1 where that is 0, at the token looked at
    moved: np.ndarray
    lens: np.ndarray  # (L + 1,): KL of the lens after from before, in nats, there

    @property
    def parts(self) -> int | None:
        """The first number of layers behind which the lens diverges by more than a hundredth nat; None: none."""
        far = np.flatnonzero(self.lens > 0.01)
        return int(far[0]) if len(far) else None


def difference(before: PromptedModel, after: PromptedModel, first: Inside, second: Inside) -> Difference:
    """Two readings of the same tokens by models whose linears have the same shapes; soft prompts are passed over.
    Raises RiyazError for others."""
    return finished(differing(before, after, first, second))


def differing(before: PromptedModel, after: PromptedModel, first: Inside, second: Inside) -> Steps[Difference]:
    """`difference` in parts, one for some tokens each."""
    own = [tuple(token for token in inside.ids if token >= 0) for inside in (first, second)]
    if own[0] != own[1] or shapes_of(first.family).linears != shapes_of(second.family).linears:
        hint = "give the model that the target was made from, or another artifact of it"
        raise RiyazError("the two models do not read the same tokens, or have other layers", "--before", hint)
    streams = [inside.trace.residual[::2, inside.at].astype(np.float64) for inside in (first, second)]  # (L + 1, C)
    far, own_length = (np.linalg.norm(each, axis=1) for each in (streams[1] - streams[0], streams[0]))
    moved = far / np.where(own_length > 0, own_length, 1.0)
    lens = np.array([divergence(two, one) for one, two in zip(first.log_p, second.log_p)])
    at_each: list[float] = []
    for firsts, seconds in zip(_distributions(before, own[0]), _distributions(after, own[0])):
        at_each += [divergence(two, one) for one, two in zip(firsts, seconds)]
        yield
    return Difference(np.array(at_each), moved, lens)


def divergence(of: np.ndarray, from_: np.ndarray) -> float:
    """Kullback-Leibler divergence, in nats, of log-probabilities (V,) from others; never below 0."""
    p = of.astype(np.float64)
    return max(0.0, float(np.exp(p) @ (p - from_)))


def weight_changes(before: PromptedModel, after: PromptedModel, target: str) -> Iterator[Changed]:
    """What training changed in the weights of `target`, which is open as `after`: the pairs of a LoRA beside its own
    base and the matrices that its adapter replaces, or every matrix of another file. Nothing where `before` is adapted
    itself, or no weight is another one."""
    first, second = before.lm.runner.family, after.lm.runner.family
    assert first is not None and second is not None, "models from files"
    if before.adapter is not None:
        return
    folder, same = artifacts.resolve(target), first.source.path == second.source.path
    if after.adapter is None:
        if not same:
            yield from whole_changes(first, second)
    elif (folder / adapters.CONFIG).is_file() and (same or first.source.sha256() == second.source.sha256()):
        yield from lora_changes(second, adapters.read(folder, second))


def touched(model: PromptedModel, changes: Sequence[Changed]) -> Touched:
    """Which parts an adaptation touches, by its prompt, its soft prompt and what changed in the weights."""
    text = model.text
    has = {"instruction": text.instruction or text.list_labels, "examples": text.examples != "none",
           "passages": text.passages}  # fmt: skip
    pairs = [change for change in changes if change.spectrum]
    weights = [change for change in changes if change.relative and not change.spectrum]
    vectors = model.lm.runner.adapter_tokens(model.adapter)
    head = getattr(model, "head", None)  # of a predictor of labels
    labels = 0 if head is None else len(head.weight)
    return Touched(tuple(name for name, own in has.items() if own), vectors, len(pairs), len(weights), labels)


def lora_changes(family: Family[ModelConfig], adapter: Adapter) -> Iterator[Changed]:
    """What the pairs of an adapter add to each linear of their base, and how far the matrices that it replaces lie from
    the base's."""
    for name, pair in adapter.pairs.items():
        spectrum = _spectrum(pair.a, pair.b) * abs(pair.scale)
        length = _length(family, _stored(family, f"{name}.weight"))
        yield Changed(name, float(np.linalg.norm(spectrum)) / length, tuple(spectrum.tolist()))
    for name, matrix in adapter.whole.items():
        if matrix.ndim != 2:
            continue  # a norm or a bias
        own = float32(*family.array(_stored(family, name)))
        length, change = (float(np.linalg.norm(each.astype(np.float64))) for each in (own, matrix - own))
        yield Changed(name.removesuffix(".weight"), change / max(length, 1e-300))


def whole_changes(before: Family[ModelConfig], after: Family[ModelConfig]) -> Iterator[Changed]:
    """How far each linear and embedding of a model lies from the model that it was trained from."""
    shapes = shapes_of(before)
    names = [f"{path}.weight" for path in (*shapes.embeddings, *shapes.linears)]
    for name in names:
        if name not in before.stored_names or name not in after.stored_names:
            continue  # a tied head
        changed = total = 0.0
        for (_, kind, one), (_, other, two) in zip(before.pieces(name, PIECE), after.pieces(name, PIECE)):
            values, others = float32(kind, one), float32(other, two)
            changed += float(np.square(others - values, dtype=np.float64).sum())
            total += float(np.square(values, dtype=np.float64).sum())
        yield Changed(name.removesuffix(".weight"), (changed / max(total, 1e-300)) ** 0.5)


def _spectrum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Singular values (r,) of B·A, by those of the small product of both QR factors."""
    right, left = np.linalg.qr(a.T.astype(np.float64))[1], np.linalg.qr(b.astype(np.float64))[1]
    return np.linalg.svd(left @ right.T, compute_uv=False)


def _stored(family: Family[ModelConfig], name: str) -> str:
    """The name of a matrix in the file: of a head that is tied to the embedding it is that of the embedding."""
    return name if name in family.stored_names else f"{shapes_of(family).embeddings[0]}.weight"


def _length(family: Family[ModelConfig], name: str) -> float:
    """The length of a matrix as one vector."""
    pieces = (float32(kind, values) for _, kind, values in family.pieces(name, PIECE))
    return float(sum(np.square(piece, dtype=np.float64).sum() for piece in pieces)) ** 0.5


def _distributions(model: PromptedModel, tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """Log-probabilities (ROWS or fewer, V) after each token, some at a time, each read once."""
    runner = model.lm.runner
    sequence = runner.open(model.adapter, room=len(tokens))
    try:
        for first in range(0, len(tokens), ROWS):
            some = tokens[first : first + ROWS]
            yield runner.forward([TokenRun(sequence, some, Whole(np.arange(len(some))))])[0]
    finally:
        runner.close(sequence)
