"""The weight seam: find linears by name and put another module in their place."""

from collections.abc import Iterator, Sequence

from torch import nn

# The exact types that are linears: a subclass may compute something else. Another kind, such as a ternary linear, has
# `in_features`, `out_features` and `forward(x)` of (T, in) to (T, out), and is given to `linears` by its type.
KINDS: tuple[type[nn.Module], ...] = (nn.Linear,)


def linears(
    model: nn.Module, targets: Sequence[str] | None, kinds: tuple[type[nn.Module], ...] = KINDS
) -> Iterator[tuple[str, nn.Module]]:
    """The paths and modules of the linears whose last name is in `targets` (None: all of them). A linear is a module
    whose type is exactly one of `kinds`."""
    matches = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) in kinds and (targets is None or name.rsplit(".", 1)[-1] in targets)
    ]
    yield from matches


def swap(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule at the dotted path `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
