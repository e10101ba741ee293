"""How `chat` and `generate` choose tokens: by the flags, then by the model's own settings, else the likeliest."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from riyaz.config import SamplingConfig
from riyaz.errors import RiyazError, number

if TYPE_CHECKING:
    from riyaz.engine.request import Sampling
    from riyaz.predictor import Predictor

Drawing = Annotated[SamplingConfig, Parameter(name="*", group=Group("Drawing tokens", sort_key=2))]
DRAWING_DEFAULTS = SamplingConfig()
System = Annotated[str | None, Parameter(help="system message: how to answer, before the conversation")]
IDLE = ("top_k", "top_p", "min_p", "seed")  # without effect where each token is the likeliest


def decide(config: SamplingConfig, predictor: "Predictor", system: str | None = None) -> "tuple[Sampling, str]":
    """(how tokens are chosen, the line that says so; "" where nothing is generated). An artifact of a task takes the
    likeliest tokens, as it was measured. Raises RiyazError for a flag that has no effect."""
    from riyaz.engine.request import GREEDY
    from riyaz.predictor.own_sampling import FILE

    explicit = config.explicit()
    if not predictor.has_model or predictor.from_set:
        for flag in [*explicit, *(["system"] if system and not predictor.has_model else [])]:
            raise _idle(flag, f"has no effect where answers are {predictor.answers_are}", "leave it out")
        return GREEDY, ""
    own = GREEDY if "temperature" in explicit else predictor.usual_sampling()
    sampling = replace(own, **explicit)
    if sampling.temperature == 0:
        for flag in [name for name in explicit if name in IDLE]:
            raise _idle(flag, "has no effect where each token is the likeliest", "give --temperature too, such as 0.8")
    source = f" (from the model's {FILE})" if own != GREEDY else ""
    return sampling, words(sampling) + source


def words(sampling: "Sampling") -> str:
    """`tokens are drawn: temperature 0.7, top-p 0.9, seed 0`."""
    usual = {option.name: option.default for option in fields(sampling)}
    values = {name: getattr(sampling, name) for name in usual}
    changed = {name: value for name, value in values.items() if value != usual[name]}
    said = [f"{name.replace('_', '-')} {number(value)}" for name, value in changed.items()]
    if sampling.temperature == 0:
        return ", ".join(["each token is the likeliest one (greedy)", *said])
    return "tokens are drawn: " + ", ".join([*said, *([] if sampling.seed else ["seed 0"])])


def _idle(name: str, what: str, hint: str) -> RiyazError:
    return RiyazError(what, "--" + name.replace("_", "-"), hint)
