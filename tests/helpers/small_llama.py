"""Small seeded llamas in memory and rows to train them on; the sizes and weights of tests/helpers/tiny_llama.py."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_llama import Tiny, config, weights

from riyaz import adapters
from riyaz.data import Message
from riyaz.data.rows import Row
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.events import Event, Listen, Progress
from riyaz.families import Family, llama
from riyaz.layers.swaps import lora, soft_prompt
from riyaz.layers.swaps.soft_prompt import SoftPrompt
from riyaz.models.llama import Model
from riyaz.predictor import ClosedPredictor

END = 2
SIZES = {"vocab": 40, "hidden": 32, "intermediate": 64}


class Stop(BaseException):
    """The process ends here; no handler of the code under test may catch it."""


def stopping_at(step: int) -> Listen:
    """A listener under which the run ends after this step."""

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done == step:
            raise Stop

    return listen


def small_model(dtype: torch.dtype = torch.float32, **sizes) -> Model:
    """A frozen model; `sizes` are the fields of Tiny."""
    tiny = Tiny(**{**SIZES, **sizes})
    model = Model(llama.from_hf(config(tiny)))
    state = {name: torch.from_numpy(array) for name, array in weights(tiny).items()}
    if tiny.tie:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class FamilyInMemory(Family):
    """What `families.describe` gives of a source, of a model in memory."""

    model: Any = None

    def array(self, name: str) -> tuple[str, np.ndarray]:
        return "F32", self.model.get_parameter(name).detach().float().numpy()


def family_of(model: Any) -> FamilyInMemory:
    return FamilyInMemory(model.config.model_type, model.config, 0, None, {}, model=model)


def attach(model: Any, folder: Path) -> Any:
    """The model with the adapter in the folder, of whichever kind it is."""
    adapter = adapters.read(folder, family_of(model))
    if adapter.soft_prompt is not None:
        return soft_prompt.attach(model, adapter.soft_prompt)
    lora.attach(model, adapter)
    return model


def save_peft(model: Any, folder: Path, **options: Any) -> None:
    """Write the LoRA or the soft prompt of the model as a PEFT folder."""
    if isinstance(model, SoftPrompt):
        vectors = model.prompt.detach().float().numpy()
        adapters.peft_prompt.write(vectors, folder, family_of(model), **options)
    else:
        adapters.peft.write(lora.adapter_of(model), folder, family_of(model), **options)


def engine_of(model: Any, name: str = "mine") -> Engine:
    """An engine of the model; its adapter, if it has one, is taken off and asked for by this name."""
    if isinstance(model, SoftPrompt):
        adapter = adapters.Adapter(soft_prompt=model.prompt.detach().float().numpy())
        model = model.base
    else:
        adapter = lora.detach(model)
    engine = Engine(TorchRunner(model))
    if adapter.pairs or adapter.whole or adapter.soft_prompt is not None:
        engine.load(name, adapter)
    return engine


def next_log_p(engine: Engine, tokens: Sequence[int], adapter: str | None = None) -> np.ndarray:
    """Log-probabilities (V,) of the token after these."""
    (row,) = engine.distributions([Request(0, tuple(tokens), adapter=adapter)], [(0,)])
    return row[0]


def label_log_probabilities(predictor: ClosedPredictor, conversations: Sequence[Sequence[Message]]) -> np.ndarray:
    """Log-probability of every label after each conversation (R, L) in nats, with the end token, not calibrated."""
    return predictor.lm.choose([each.request for each in predictor.prepare(conversations)])


def moved(model: Model, tokens: tuple[int, ...]) -> SoftPrompt:
    """The model behind a soft prompt that began as these tokens and is no text any more."""
    prompted = soft_prompt.apply(model, tokens)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        prompted.prompt += 0.3 * torch.randn(prompted.prompt.shape, generator=generator)
    return prompted


def random_rows(seed: int, count: int, longest: int = 20, vocab: int = SIZES["vocab"]) -> list[Row]:
    """Rows of random tokens, prompts from 1 to `longest` tokens, answers with their end from 1 to 6."""
    generator = np.random.default_rng(seed)

    def ids(least: int, most: int) -> tuple[int, ...]:
        return tuple(generator.integers(3, vocab, generator.integers(least, most + 1)).tolist())

    return [Row(ids(1, longest), (*ids(0, 5), END)) for _ in range(count)]


def counting_rows() -> list[Row]:
    """A task to learn: after a letter, itself once, twice or three times, then the end."""
    return [Row((3, letter, 4), (*[letter] * (1 + letter % 3), END)) for letter in range(5, 29)]


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """A hash of the exact content of each tensor."""
    return {n: hashlib.sha256(tensor.detach().float().numpy()).hexdigest()[:16] for n, tensor in tensors.items()}
