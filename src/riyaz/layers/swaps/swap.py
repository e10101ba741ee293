"""Find a model's linears by name and replace them by other modules."""

from collections.abc import Iterator, Sequence

from torch import nn

# The types that count as linears, matched exactly, since a subclass may compute something else. Another kind, such as a
# ternary linear, has `in_features`, `out_features` and `forward(x)` from (T, in) to (T, out); pass its type as `kinds`.
KINDS: tuple[type[nn.Module], ...] = (nn.Linear,)


def linears(
    model: nn.Module, targets: Sequence[str] | None, kinds: tuple[type[nn.Module], ...] = KINDS
) -> Iterator[tuple[str, nn.Module]]:
    """The paths and modules of the linears (modules whose type is exactly one of `kinds`) whose paths end with a name
    in `targets`; None means all of them."""
    yield from [  # a list, so that the caller may swap modules while it iterates
        (name, module)
        for name, module in model.named_modules()
        if type(module) in kinds and (targets is None or name.rsplit(".", 1)[-1] in targets)
    ]


def swap(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule at the dotted path `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
