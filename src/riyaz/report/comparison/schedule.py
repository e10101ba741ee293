"""Who did what when: the processes of a comparison on several places, as a table and as a line for each place."""

from riyaz.report.words import duration
from riyaz.results import Comparison, Turn

TITLE = "Who did what when"
NOTE = (
    "A row for each place. Filled: a method was fitted there, or trained for a while at one of its learning rates; "
    "pale: it was evaluated, always on the machine of the command, so that times per answer come from one machine. "
    "Dashed: the place was lost, and the work began anew."
)
FINAL = "kept"  # the part that is the arm's own


def ended_turns(comparison: Comparison) -> list[Turn]:
    """The turns that have an end, in the order of their beginnings; [] where this machine alone has worked."""
    turns = [turn for turn in comparison.schedule or [] if turn.ended is not None]
    return sorted(turns, key=lambda turn: turn.began)


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles and one row for every turn."""
    titles = ["place", "method", "part", "work", "began after", "took", "outcome"]
    rows = [
        [turn.place, turn.arm, part_words(turn), turn.work, duration(turn.began),
         duration((turn.ended or turn.began) - turn.began), turn.outcome]
        for turn in ended_turns(comparison)
    ]  # fmt: skip
    return titles, rows


def part_words(turn: Turn) -> str:
    """Which part of its arm a turn worked on: "" for the arm's own."""
    rate = "" if turn.rate is None else f"rate {turn.rate:g}"
    return ", ".join(filter(None, ["" if turn.part == FINAL else turn.part, rate]))


def lines(comparison: Comparison) -> list[str]:
    """`ssh a: fitted lora, full, busy for 4m 12s`, one for each place."""
    turns = ended_turns(comparison)
    said = []
    for place in dict.fromkeys(turn.place for turn in turns):
        mine = [turn for turn in turns if turn.place == place]
        fitted = dict.fromkeys(turn.arm for turn in mine if turn.work == "fit" and turn.outcome == "done")
        busy = sum((turn.ended or turn.began) - turn.began for turn in mine)
        lost = ", lost once" if any(turn.outcome == "lost" for turn in mine) else ""
        said.append(f"{place}: fitted {', '.join(fitted) or 'nothing'}, busy for {duration(busy)}{lost}")
    return said
