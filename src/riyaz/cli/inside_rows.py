"""`riyaz inside --rows`: what a model does on many rows, as tables: wrong answers layer by layer, layers switched off,
and where it looks in the passages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.cli.inside_tables import bar, layer_name, line, title
from riyaz.cli.options import DataFlags, resolve_options
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.config import Precision


def look_into_rows(
    screen: Screen, target: str, test: Path, reading: DataFlags, limit: int | None, layers_off: bool,
    precision: "Precision",
) -> None:  # fmt: skip
    """Measure on the rows of a file, and show it. Raises RiyazError."""
    from riyaz.inside.rows import inside_rows
    from riyaz.inside.rows_document import rows_document
    from riyaz.report.comparison import terminal
    from riyaz.target_scores import open_scored

    config, _ = resolve_options(test, reading)
    with terminal.listener(screen.talk) as listen:
        opened = open_scored(target, test, config, limit=limit, precision=precision, listen=listen)
        document = rows_document(inside_rows(opened, layers_off, listen))
    show_rows(screen, document)
    screen.finish(document)


def refuse(values: dict[str, Any], hint: str) -> None:
    """Raises RiyazError for the first option that was given and has no effect here."""
    for name, value in values.items():
        if value is not None and value is not False:
            raise RiyazError("has no effect here", "--" + name.replace("_", "-"), hint)


def show_rows(screen: Screen, made: dict[str, Any]) -> None:
    """Print a document, part by part."""
    low, high = made["ci_low"], made["ci_high"]
    line(
        screen,
        f"{made['target']} on {made['rows']} rows: {made['metric']} {made['score']:.3f}, 95 % interval {low:.3f} to "
        f"{high:.3f}",
    )
    if "wrong" in made:
        wrong(screen, made["wrong"])
    if "layers_off" in made:
        layers_off(screen, made["layers_off"], made["rows"])
    if "passages" in made:
        passages(screen, made["passages"])


def wrong(screen: Screen, part: dict[str, Any]) -> None:
    """The wrong answers by layer."""
    count = part["answers"]
    title(screen, f"Wrong answers, layer by layer: {count}")
    if not count:
        line(screen, "There are none to look at.", "dim")
    else:
        rows = [
            [layer_name(each["layer"]), str(each["ahead"]), share_bar(each["ahead"], count), str(each["lost"])]
            for each in part["layers"]
        ]
        titles = ["layer", "right label ahead", " ", "chosen label takes over"]
        screen.table(titles, rows, numbers=[titles[0], titles[1], titles[3]])
        line(
            screen,
            f"In {count - part['never']} of {count} the right label was ahead behind some layer. Only the right label "
            "and the chosen one are compared, by the score that they would have if the model ended there.",
            "dim",
        )
    left = {"too long": part["too_long"], "with an unknown label": part["unknown"], "by rounding": part["undecided"]}
    leave(screen, left)


def layers_off(screen: Screen, part: dict[str, Any], count: int) -> None:
    """The scores with one layer off at a time."""
    title(screen, f"One layer off at a time, {count} rows")
    rows = []
    entries = [(str(each["layer"]), each) for each in part["layers"]]
    for name, each in entries + ([("all", part["every"])] if part["every"] else []):
        nats = each["nats"]
        finer = ["", ""] if nats is None else [f"{nats['difference']:+.3f}", between(nats)]
        rows.append([name, f"{each['score']:.3f}", f"{each['difference']:+.3f}", between(each), *finer])
    titles = ["layer off", "score", "change", "95 % interval", "nats of the right label", "95 % interval of nats"]
    shown = len(titles) if any(row[4] for row in rows) else 4
    screen.table(titles[:shown], [row[:shown] for row in rows], numbers=[titles[0], *titles[1:3], titles[4]])
    line(
        screen,
        f"Each interval is of one layer alone: of {len(part['layers'])} layers that change nothing, about "
        f"{0.05 * len(part['layers']):.1f} leave out 0 by chance. A choice that is made by these rows needs other rows "
        "as its test.",
        "dim",
    )


def passages(screen: Screen, part: dict[str, Any]) -> None:
    """Where the last token of the prompts looks."""
    count = part["rows"]
    title(screen, "Does it look at the right passage?")
    left = {
        "without the answer in any passage": part["without"], "with it in all": part["alike"],
        "too long": part["too_long"], "whose template changes the passages": part["rewritten"],
    }  # fmt: skip
    if not count:
        line(screen, "There is no row whose passages hold the answer in part.", "dim")
        leave(screen, left)
        return
    line(
        screen,
        f"In {part['most']} of {count} rows ({part['share']:.0%}, 95 % interval {part['ci_low']:.0%} to "
        f"{part['ci_high']:.0%}) a passage that holds the answer gets the most attention of the prompt's last token, "
        "on average over all heads.",
    )
    line(
        screen,
        f"By chance it would be {part['chance']:.0%}; the first passage holds the answer in {part['first']} rows, the "
        f"longest one in {part['longest']}.",
        "dim",
    )
    there, elsewhere = part["score_where_most"], part["score_elsewhere"]
    if there is not None and elsewhere is not None:
        line(screen, f"Score of the answers where it does: {there:.2f}; where it does not: {elsewhere:.2f}.", "dim")
    titles = ["layer", "on passages", "on the right one", "the right one gets most"]
    rows = [
        [str(e["layer"]), f"{e['on_passages']:.1%}", f"{e['on_right']:.1%}", f"{e['most']} of {count}"]
        for e in part["layers"]
    ]
    screen.table(titles, rows, numbers=titles)
    titles = ["layer.head", "on passages", "on the right one", "the right one gets most"]
    rows = [
        [f"{e['layer']}.{e['head']}", f"{e['on_passages']:.1%}", f"{e['on_right']:.1%}", f"{e['most']} of {count}"]
        for e in part["heads"]
    ]
    screen.table(titles, rows, numbers=titles)
    line(screen, "These heads were chosen by these rows: on others they will do worse.", "dim")
    leave(screen, left)


def leave(screen: Screen, left: dict[str, int]) -> None:
    """Say which rows were left out, where any were."""
    parts = [f"{count} {name}" for name, count in left.items() if count]
    if parts:
        line(screen, f"Left out: {', '.join(parts)}.", "dim")


def between(paired: dict[str, Any]) -> str:
    """The interval of a difference."""
    return f"{paired['low']:+.3f} to {paired['high']:+.3f}"


def share_bar(part: int, count: int) -> str:
    """A bar of a share of the answers."""
    return bar(part / count)
