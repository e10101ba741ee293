"""One product by hand, and all products of a token counted.

The last product of a pass is the easiest to check: the score of a token is its row of the output matrix times the
hidden state, and the difference of two scores is the difference of the two log-probabilities that the engine gives.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riyaz import hardware, native
from riyaz.adapters.base_shapes import HEAD_WEIGHT, shapes_of
from riyaz.engine.request import Request
from riyaz.engine.runner import Hidden, TokenRun
from riyaz.families import FAMILIES, Family, ModelConfig
from riyaz.inside.reading import Inside
from riyaz.inside.vectors import embedding_of
from riyaz.predictor import PromptedModel

SHOWN = 8  # numbers of a product
TIMED, WARM = 24, 4  # tokens generated to measure the speed, and before


@dataclass(frozen=True, eq=False)
class Product:
    """The likeliest token's row of the output matrix w (C,) times the hidden state x (C,): its score. `second` is the
    next likeliest token's score; `difference` that of both, behind the cap of a family that bends large scores;
    `expected` the same as the engine's log-probabilities have it."""

    tokens: tuple[int, int]
    x: np.ndarray
    w: np.ndarray
    score: float
    second: float
    difference: float
    expected: float


@dataclass(frozen=True)
class Matrix:
    """A matrix of weights: `count` layers have one, and a token is multiplied by each once."""

    name: str
    rows: int
    columns: int
    count: int

    @property
    def multiplications(self) -> int:
        """Multiplications of a token, in all layers."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True)
class Speed:
    """What this machine does with it: tokens a second one by one, 10⁹ multiplications a second, and the same of a loop
    in registers with integers of 8 bits, None without the C++ engine."""

    tokens_s: float
    billions_s: float
    peak_billions_s: float | None


def by_hand(model: PromptedModel, inside: Inside) -> Product:
    """The product that makes the score of the likeliest next token."""
    runner = model.lm.runner
    vectors = runner.adapter_tokens(model.adapter)
    sequence = runner.open(model.adapter)
    try:
        (x,) = runner.forward([TokenRun(sequence, inside.ids[vectors : inside.at + 1], Hidden(), keep=False)])
    finally:
        runner.close(sequence)
    first, second = np.argsort(-inside.log_p[-1], kind="stable")[:2].tolist()
    name = HEAD_WEIGHT if HEAD_WEIGHT in inside.family.stored_names else embedding_of(inside.family)
    rows = inside.family.rows(name, [first, second]).astype(np.float64)
    scores = rows @ x.astype(np.float64)
    expected = float(inside.log_p[-1][first] - inside.log_p[-1][second])
    cap = FAMILIES[inside.family.model_type].native_settings(inside.family.config).get("logit_cap")
    bent = cap * np.tanh(scores / cap) if cap else scores
    w = rows[0].astype(np.float32)
    return Product((first, second), x, w, float(scores[0]), float(scores[1]), float(bent[0] - bent[1]), expected)


def matrices(family: Family[ModelConfig]) -> list[Matrix]:
    """The matrices that a token is multiplied by, in their order; those of the same name and shape together."""
    kinds: dict[tuple[str, int, int], int] = {}
    for path, (rows, columns) in shapes_of(family).linears.items():
        kind = path.rpartition(".")[2], rows, columns
        kinds[kind] = kinds.get(kind, 0) + 1
    return [Matrix(*kind, count) for kind, count in kinds.items()]


def attention_multiplications(family: Family[ModelConfig], tokens: int) -> int:
    """Multiplications of attention for a token that looks at so many: with keys, and with values."""
    config = family.config
    return 2 * config.n_layers * config.n_heads * config.head_dim * tokens


def speed(model: PromptedModel, tokens: Sequence[int]) -> Speed | None:
    """Measured now, by generating some tokens after these; None where the context has no room for them."""
    family = model.lm.runner.family
    request = Request(0, tuple(tokens), adapter=model.adapter, limit=TIMED + 1)
    if family is None or model.lm.room(request) < TIMED + 1:
        return None
    times = []
    for _ in model.lm.stream(request):
        times.append(time.perf_counter())
    tokens_s = (len(times) - 1 - WARM) / (times[-1] - times[WARM])
    all_ = sum(matrix.multiplications for matrix in matrices(family))
    all_ += attention_multiplications(family, len(tokens) + TIMED // 2)
    peak = native.matmul_peak("int8", hardware.threads()) / 2 if native.available() else None  # it counts additions too
    return Speed(tokens_s, tokens_s * all_ / 1e9, peak)
