"""The weight seam: find linears by name and put another module in their place."""

from collections.abc import Iterator, Sequence

from torch import nn


def linears(model: nn.Module, targets: Sequence[str] | None) -> Iterator[tuple[str, nn.Linear]]:
    """The linears inside the layers whose last name is in `targets` (None: every one of them)."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (targets is None or name.rsplit(".", 1)[-1] in targets)
    ]
    yield from found


def swap(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule at the dotted path `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
