"""The names of arms in pictures, where there is little room: a base is cut to what tells it from the others."""

from collections.abc import Sequence

from riyaz.report.media.svg import label
from riyaz.results import ArmResult


def short_names(arms: Sequence[ArmResult], most: int = 28) -> dict[str, str]:
    """The arms' names for pictures, of `most` characters at most: of a base as much as tells it from the others, such
    as `lora@135m` of smollm2-135m beside smollm2-360m."""
    bases = _short_bases(list(dict.fromkeys(arm.base for arm in arms if arm.base)))
    shown = {}
    for arm in arms:
        base = f"@{label(bases[arm.base], most // 2)}" if arm.base else ""
        shown[arm.name] = label(arm.method, most - len(base)) + base
    return shown


def side_room(arms: Sequence[ArmResult]) -> int:
    """Pixels beside a picture for names of 16 characters, which are wider with an @."""
    return 152 if any(arm.base for arm in arms) else 122


def _short_bases(bases: list[str]) -> dict[str, str]:
    """By base: the fewest parts of its name, behind those that all begin with, that no other has; else the name."""
    parts = [base.split("-") for base in bases]
    alike = [len(set(each)) == 1 for each in zip(*parts, strict=False)]  # whether all have the same part at a place
    same = [*alike, False].index(False) if len(parts) > 1 else 0
    for count in range(1, max(map(len, parts), default=0) + 1):
        short = ["-".join(each[same : same + count]) for each in parts]
        if all(short) and len(set(short)) == len(short):
            return dict(zip(bases, short, strict=True))
    return {base: base for base in bases}
