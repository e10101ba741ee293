"""`riyaz inside`: what a model computes between a text and its next token, and what adapting changed in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from riyaz.cli import inside_tables
from riyaz.cli.inside_rows import look_into_rows, refuse
from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.opened import opened
from riyaz.cli.options import READING_DEFAULTS, Json, Quiet, Reading, Served, Target
from riyaz.cli.output import Screen
from riyaz.cli.sampling import DRAWING_DEFAULTS, Drawing
from riyaz.config import Precision, SamplingConfig
from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.engine.request import Sampling
    from riyaz.inside import Inside
    from riyaz.predictor import ModelPredictor, Predictor

OWN = "base"  # what --before takes for an artifact's own base


def inside(
    target: Target,
    text: Annotated[str | None, Parameter(help="the text to look at; no chat template is applied")] = None,
    /,
    *,
    chat: Annotated[
        bool, Parameter(help="TEXT is a user's message: put it into the target's prompt, with template and passages")
    ] = False,
    at: Annotated[
        int | None, Parameter(help="the token whose layers are shown, from 0, or from the end from -1 (default: -1)")
    ] = None,
    layer: Annotated[
        int | None, Parameter(help="the layer whose attention is shown, from 1 (default: the last)",
                              validator=validators.Number(gte=1)),
    ] = None,
    head: Annotated[
        int | None, Parameter(help="one head of that layer, from 1 (default: the mean of all)",
                              validator=validators.Number(gte=1)),
    ] = None,
    before: Annotated[
        str | None,
        LANGUAGE_MODEL,
        Parameter(help="another model to show the differences from; base: the target's own base"),
    ] = None,
    before_precision: Annotated[
        Precision | None, Parameter(help="how the weights of --before are served (default: as --precision says)")
    ] = None,
    codes: Annotated[bool, Parameter(help="count the codes of weights that the file holds in 8 bits or fewer")] = False,
    rows: Annotated[
        Path | None,
        Parameter(help="in place of TEXT a file of rows with answers: behind which layers wrong labels took over, and "
                       "where the target looks in its passages")
    ] = None,
    layers_off: Annotated[
        bool,
        Parameter(help="with --rows: switch one layer of what was trained off at a time, and score the rows again; "
                       "rows by which you then choose something are no test of it any more")
    ] = False,
    limit: Annotated[int | None, Parameter(help="with --rows: use only the first N rows")] = None,
    precision: Served = "auto",
    reading: Reading = READING_DEFAULTS,
    drawing: Drawing = DRAWING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Show what a model computes between a text and its next token, and what adapting changed in it."""
    screen = Screen(json, quiet)
    shown = Shown(chat, at, layer, head, before, before_precision, codes)
    if rows is not None:
        if text is not None:
            raise RiyazError("is looked at alone, without rows", "TEXT", "leave out the text, or --rows")
        refuse(vars(shown) | drawing.explicit(), "it is about a text; leave it out, or --rows")
        look_into_rows(screen, target, rows, reading, limit, layers_off, precision)
        return
    if text is None:
        raise RiyazError("there is nothing to look at", "TEXT", "give a text, or --rows and a file of rows")
    of_rows = {"layers_off": layers_off, "limit": limit, **reading.explicit}
    refuse(of_rows, "it is about rows; add --rows, or leave it out")
    look_into_text(screen, target, text, shown, precision, drawing)


@dataclass(frozen=True)
class Shown:
    """What is shown of one text: the options of the command."""

    chat: bool
    at: int | None
    layer: int | None
    head: int | None
    before: str | None
    before_precision: Precision | None
    codes: bool


def look_into_text(
    screen: Screen, target: str, text: str, shown: Shown, precision: Precision, drawing: SamplingConfig
) -> None:
    """Read one text, and show it. Raises RiyazError."""
    from riyaz.inside import document, message_tokens, read, text_tokens

    sampling, before, before_precision = drawn(drawing), shown.before, shown.before_precision
    if before_precision is not None and before in (None, OWN):
        raise RiyazError("is how another model is served", "--before-precision", "name it with --before")
    model = language_model(opened(screen, target, precision=precision), target)
    earlier = None
    if before == OWN:
        earlier = base_of(model, target)
    elif before is not None:
        earlier = language_model(opened(screen, before, precision=before_precision or precision), before)
    tokens = message_tokens(model, text) if shown.chat else text_tokens(model, text)
    reading = read(model, tokens, -1 if shown.at is None else shown.at)
    config = reading.family.config
    place = within("--layer", shown.layer or config.n_layers, config.n_layers) - 1
    one = None if shown.head is None else within("--head", shown.head, config.n_heads) - 1
    made = {
        "target": target,
        "text": text,
        "chat": shown.chat,
        **document.document(model, reading, place, one, sampling),
    }
    if earlier is not None:
        made["before"] = {"target": before, **compared(earlier, model, tokens, reading, target)}
    if shown.codes:
        made["codes"] = document.coded(reading.family)
    inside_tables.show(screen, made)
    screen.finish(made)


def drawn(drawing: SamplingConfig) -> "Sampling":
    """How the shown distribution is changed before a token would be drawn; nothing is drawn here. Raises RiyazError."""
    from riyaz.engine.request import Sampling

    explicit = drawing.explicit()
    for name in ("seed", "repetition_penalty"):
        if name in explicit:
            raise RiyazError("has no effect: no token is drawn", "--" + name.replace("_", "-"), "leave it out")
    if explicit.get("temperature") == 0:
        raise RiyazError("0 has one possible token", "--temperature", "give a number above 0")
    return Sampling(**{"temperature": 1.0, **explicit})


def language_model(predictor: "Predictor", target: str) -> "ModelPredictor":
    """The predictor, if a language model answers. Raises RiyazError."""
    if not predictor.has_model:
        raise RiyazError(
            f"answers are {predictor.answers_are}, by no language model", target, "give a model or an artifact with one"
        )
    return predictor


def base_of(model: "ModelPredictor", target: str) -> "ModelPredictor":
    """The base under an artifact. Raises RiyazError where its weights are the base's."""
    if not model.changes_weights:
        what = "changes no weights, so with the same tokens it computes what its base does"
        raise RiyazError(what, target, "leave out --before, or give another model")
    return model.base()


def within(flag: str, number: int, most: int) -> int:
    """A number from 1 to `most`. Raises RiyazError."""
    if number > most:
        raise RiyazError(f"there is no {flag.lstrip('-')} {number}", flag, f"choose one of 1 to {most}")
    return number


def compared(
    earlier: "ModelPredictor", model: "ModelPredictor", tokens: list[int], reading: "Inside", target: str
) -> dict[str, Any]:
    """What differs from an earlier model on the same tokens, and in the weights: a LoRA beside its own base, or all of
    them in another file."""
    from riyaz.inside import document, read
    from riyaz.inside.beside import difference, weight_changes

    other = read(earlier, tokens, reading.at - reading.soft)
    between = document.changes(difference(earlier, model, other, reading))
    return {**between, **document.weight_changes(model, [*weight_changes(earlier, model, target)])}
