"""Opens the target of a command, and says so where torch answers because there is no C++ engine."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from riyaz.cli.output import Screen
from riyaz.config import Kv, Lookup, Precision

if TYPE_CHECKING:
    from riyaz.predictor import FreePredictor, Predictor


@overload
def opened(screen: Screen, target: str, *, precision: Precision, plain: Literal[True]) -> "FreePredictor": ...


@overload
def opened(
    screen: Screen, target: str | Path, *, base: str | None = None, precision: Precision = "auto", kv: Kv = "auto",
    schema: Path | None = None, max_new_tokens: int | None = None, lookup: Lookup | None = None,
) -> "Predictor": ...  # fmt: skip


def opened(
    screen: Screen, target: str | Path, *, base: str | None = None, precision: Precision = "auto", kv: Kv = "auto",
    plain: bool = False, schema: Path | None = None, max_new_tokens: int | None = None, lookup: Lookup | None = None,
) -> "Predictor":  # fmt: skip
    """The predictor of a model, an artifact or an adapter; of a model alone if it is `plain`. Its answers keep to the
    `schema` of a file and have at most `max_new_tokens` tokens; `lookup` None: as the environment says. Raises
    RiyazError."""
    from riyaz.text.template import start_worker

    start_worker()
    from riyaz.data.schema import read_schema
    from riyaz.engine.opening import engine_note
    from riyaz.predictor import keeping_to, open_model, open_target, within

    if note := engine_note():
        screen.talk.print(f"note: {note}", soft_wrap=True)
    text = read_schema(schema) if schema else ""
    predictor = open_model(target, precision) if plain else open_target(target, base, precision, kv, lookup)
    return within(keeping_to(predictor, text, str(schema)), max_new_tokens)


def looked_up(predictor: "Predictor") -> dict[str, int | str] | None:
    """Whether answers were looked up in their prompts, and what came of it; None where no model answers."""
    if not predictor.has_model:
        return None
    return {"mode": predictor.lm.drafts.mode, **asdict(predictor.lm.drafts.counts)}


def tell_lookup(screen: Screen, predictor: "Predictor") -> None:
    """Print what came of prompt lookup, if it has read drafts."""
    if predictor.has_model and (text := predictor.lm.drafts.counts.words):
        screen.talk.print(text, style="dim", soft_wrap=True)
