"""How a model's publisher draws its answers: the settings in generation_config.json."""

from collections.abc import Mapping
from typing import Any

from riyaz.config import SamplingConfig
from riyaz.engine.request import Sampling
from riyaz.errors import RiyazError

DRAWING = ("temperature", "top_k", "top_p", "min_p")  # in effect where do_sample is true
FILE = "generation_config.json"


def own_sampling(generation: Mapping[str, Any]) -> Sampling:
    """The settings that a generation_config.json holds, with temperature 1 where it draws and names none; settings
    that it does not hold change nothing. Raises RiyazError naming a wrong value."""
    drawing = generation.get("do_sample") is True
    names = (*DRAWING, "repetition_penalty") if drawing else ("repetition_penalty",)
    values = {name: generation[name] for name in names if generation.get(name) is not None}
    try:
        checked = SamplingConfig(**values)
    except RiyazError as error:
        name = error.where.removeprefix("--").replace("-", "_")
        raise RiyazError(
            error.what, f"the model's {FILE}: {name}", f"give {error.where}, or correct the file"
        ) from None
    return Sampling(**{"temperature": 1.0 if drawing else 0.0, **checked.explicit()})
