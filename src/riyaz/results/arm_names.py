"""The name of an arm: its method, and in a comparison of several bases METHOD@BASE."""

BETWEEN = "@"


def arm_name(method: str, base: str | None) -> str:
    """The name of the arm of a method on a base; None: there is one base only, or the method uses none."""
    return method if base is None else f"{method}{BETWEEN}{base}"


def parted(name: str) -> tuple[str, str | None]:
    """(method, base) of an arm's name."""
    method, between, base = name.partition(BETWEEN)
    return method, base if between else None
