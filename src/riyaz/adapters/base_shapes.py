"""Names and shapes of a base model's linears, embeddings and parameters, and the check that an adapter fits them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz.adapters.adapter import Adapter, Pair, float32
from riyaz.errors import RiyazError, few
from riyaz.families import FAMILIES, Family, ModelConfig

HEAD_WEIGHT = "lm_head.weight"
EMBEDDING = "_embd.weight"  # the end of the GGUF names of token and position embeddings


@dataclass(frozen=True)
class BaseShapes:
    """Names and shapes of a base model. A head tied to the embedding is listed as a linear and a parameter too."""

    parameters: Mapping[str, tuple[int, ...]]  # path -> shape
    linears: Mapping[str, tuple[int, int]]  # module path -> (out, in)
    embeddings: tuple[str, ...]  # module paths, the token embedding first

    @property
    def ends(self) -> tuple[str, str]:
        """The parameter paths of the token embedding and of the head."""
        return f"{self.embeddings[0]}.weight", HEAD_WEIGHT

    def unmatched(self, name: str, key: str) -> str:
        """The error text for a tensor `key` of a file whose module `name` is not a linear of the base."""
        if name in self.embeddings:
            return f"{name} is an embedding, and LoRA on embeddings is not supported"
        return f"{key} matches no layer"


def shapes_of(family: Family[ModelConfig]) -> BaseShapes:
    """The names and shapes of a base model, in the order of its modules."""
    module = FAMILIES[family.model_type]
    parameters: dict[str, tuple[int, ...]] = dict(module.layer_plan(family.config))
    gguf_names = module.names(family.config)
    embeddings = [path for path in parameters if gguf_names[path].endswith(EMBEDDING)]
    parameters.setdefault(HEAD_WEIGHT, parameters[embeddings[0]])
    linears = {
        path.removesuffix(".weight"): (shape[0], shape[1])
        for path, shape in parameters.items()
        if len(shape) == 2 and path not in embeddings
    }
    return BaseShapes(parameters, linears, tuple(path.removesuffix(".weight") for path in embeddings))


def checked_adapter(
    shapes: BaseShapes,
    pairs: Mapping[str, Pair],
    whole: Mapping[str, np.ndarray],
    problems: Sequence[str],
    where: Path,
) -> Adapter:
    """An Adapter of these pairs (by module path) and replaced parameters (by path), in the order of the base's modules.
    Raises RiyazError, which lists the first of the caller's `problems` and of all that does not fit the base."""
    problems = list(problems)
    for name, pair in pairs.items():
        problems += _pair_problems(shapes, name, pair)
    for path, tensor in whole.items():
        problems += _whole_problems(shapes, path, tensor)
        if path.rpartition(".")[0] in pairs:
            problems.append(f"{path.rpartition('.')[0]} has both a LoRA and a replaced weight")
    if not pairs and not whole:
        problems.append("no adapter tensor fits this model")
    if problems:
        raise RiyazError(f"the adapter does not fit the base: {few(problems, '; ')}", str(where))
    return Adapter(
        {name: pairs[name] for name in shapes.linears if name in pairs},
        {path: whole[path] for path in shapes.parameters if path in whole},
    )


def differs_from_base(family: Family[ModelConfig], path: str, tensor: np.ndarray) -> list[str]:
    """An error text if a tensor, in the checkpoint's layout, differs from the base's parameter at `path` by more than
    rounding, else an empty list."""
    tied = path == HEAD_WEIGHT and family.config.tie_word_embeddings
    expected = float32(*family.array(shapes_of(family).ends[0] if tied else path))
    if expected.shape != tensor.shape or not np.allclose(expected, tensor, rtol=2**-7, atol=1e-6):
        return [f"{path} differs from the base's"]
    return []


def _pair_problems(shapes: BaseShapes, name: str, pair: Pair) -> list[str]:
    """The first problem of a module's LoRA pair as an error text, or an empty list."""
    if name not in shapes.linears:
        return [shapes.unmatched(name, name)]
    a, b, shape = pair.a, pair.b, shapes.linears[name]
    if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
        return [f"{name} has A {a.shape} and B {b.shape}, the layer is {shape}"]
    return [] if len(a) else [f"{name} has rank 0"]


def _whole_problems(shapes: BaseShapes, path: str, tensor: np.ndarray) -> list[str]:
    """The first problem of a replaced parameter as an error text, or an empty list."""
    if path not in shapes.parameters:
        return [f"{path} matches no tensor of the model"]
    if shapes.parameters[path] != tensor.shape:
        return [f"{path} has the shape {tensor.shape}, the model's is {shapes.parameters[path]}"]
    return []
