"""`riyaz predict`: the most likely next tokens and their probabilities."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from riyaz.cli.opened import opened
from riyaz.cli.options import Json, Served, configured
from riyaz.cli.output import Screen
from riyaz.config import DEFAULT_MODEL, CompareConfig
from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.predictor import PromptedModel

CELLS = 20  # characters of a full bar
EIGHTHS = " ▏▎▍▌▋▊▉"


def predict(
    text: Annotated[str, Parameter(help="the text to continue; no chat template is applied")],
    /,
    *,
    model: Annotated[str | None, configured("model")] = None,
    adapter: Annotated[
        Path | None, Parameter(help="artifact to show beside its base model, or COMPARISON/METHOD")
    ] = None,
    top: Annotated[int, Parameter(help="tokens to show", validator=validators.Number(gte=1))] = 10,
    temperature: Annotated[
        float,
        Parameter(
            help="below 1 raises the likeliest tokens, above 1 evens them out", validator=validators.Number(gt=0)
        ),
    ] = 1.0,
    precision: Served = "auto",
    json: Json = False,
) -> None:
    """Show the most likely next tokens, before and after adapting."""
    screen = Screen(json)
    if not math.isfinite(temperature):
        raise RiyazError(f"{temperature} is not a finite number", "--temperature", "give a finite number")
    if model is not None:
        from riyaz.comparison.bases import expect_one

        expect_one(CompareConfig(model=model).model, "riyaz predict")  # type: ignore[arg-type]  # parsed there
    document: dict[str, Any] = {"text": text, "adapter": adapter and str(adapter), "temperature": temperature}
    if adapter is None:
        document["before"] = likeliest(
            opened(screen, model or DEFAULT_MODEL, precision=precision, plain=True), text, top, temperature
        )
    else:
        adapted = opened(screen, adapter, base=model, precision=precision)
        if not adapted.has_model or not adapted.changes_weights:
            what = "this changes no weights, so its next tokens are its base model's"
            raise RiyazError(what, str(adapter), "leave out --adapter")
        if adapted.note:
            screen.talk.print(f"note: {adapted.note}", soft_wrap=True)
        document["before"] = likeliest(adapted.base(), text, top, temperature)
        document["after"] = likeliest(adapted, text, top, temperature)
    sides = [name for name in ("before", "after") if name in document]
    titles = [title for side in sides for title in (side if len(sides) > 1 else "next token", "p", "")]
    highest = max(entry["probability"] for side in sides for entry in document[side])
    columns = [[cells(entry, highest) for entry in document[side]] for side in sides]
    screen.table(titles, [[cell for part in row for cell in part] for row in zip(*columns)], numbers=["p"])
    screen.finish(document)


def likeliest(predictor: "PromptedModel", text: str, top: int, temperature: float) -> list[dict[str, Any]]:
    """The `top` most likely tokens after the text, each with its id, text and probability."""
    from riyaz.library.model import next_tokens

    tokens = next_tokens(predictor, text, top, temperature)
    return [{"token": token.text, "id": token.id, "probability": token.probability} for token in tokens]


def cells(entry: dict[str, Any], highest: float) -> tuple[str, str, str]:
    """(token in quotes, probability, bar): a token of the `highest` probability of both sides has a full bar."""
    share = entry["probability"] / max(highest, 1e-12)
    return repr(entry["token"]), f"{entry['probability']:.4f}", bar(share)


def bar(share: float) -> str:
    """A bar of CELLS cells at share 1, in eighths of a cell."""
    whole, eighth = divmod(round(share * CELLS * 8), 8)
    return ("█" * whole + EIGHTHS[eighth]).rstrip()
