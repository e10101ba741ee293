"""Options of `riyaz pretrain`."""

from dataclasses import dataclass
from typing import Any, Literal

from riyaz.config.checking import Seconds, check_fields, explicit_options
from riyaz.config.option import LARGEST_SEED, option, thread_count
from riyaz.errors import RiyazError

FreshFamily = Literal["llama", "gpt2", "bitnet"]  # families that riyaz can pretrain, those in `families.FRESH`
BUDGET = Seconds("15m")  # where neither a size nor a number of steps is given


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Options of pretraining from random weights. None: derived from text, budget and machine."""

    tokenizer: str | None = option(
        None,
        "folder of a tokenizer, bytes, or chars; if not given, a BPE tokenizer is trained on the text",
        common=True,
    )
    size: Literal["1m", "5m", "15m", "50m"] | None = option(
        None, "approximate number of parameters; the budget decides if not given", common=True
    )
    budget: Seconds | None = option(
        None,
        f"wall time of the whole command, such as 90s or 1h; default {BUDGET} unless --size or --steps is given",
        common=True,
    )
    family: FreshFamily | None = option(
        None, "architecture of the model; llama, and bitnet with --ternary, if not given"
    )
    ternary: bool | None = option(
        None, "train weights -1, 0 and 1 with a scale (BitNet b1.58) in all layers but embedding and head", common=True
    )
    context: int | None = option(
        None, "context length: longest sequence the model reads, in tokens", common=True, minimum=1
    )
    layers: int | None = option(None, "number of layers", minimum=1)
    heads: int | None = option(None, "attention heads per layer", minimum=1)
    width: int | None = option(None, "hidden size: length of the vector of each token in the model", minimum=1)
    batch: int | None = option(None, "batch size: sequences of --context tokens per training step", minimum=1)
    steps: int | None = option(None, "number of training steps", common=True, minimum=1)
    lr: float | None = option(None, "highest learning rate", common=True, above=0, maximum=1)
    dropout: float | None = option(None, "share of activations set to zero during training", minimum=0, below=1)
    compute: Literal["bfloat16", "float32"] | None = option(
        None, "number format of the matrix products; the faster one if not given"
    )
    validate_every: int | None = option(
        None, "training steps between two validations, each with sample texts", minimum=1
    )
    checkpoint_every: int | None = option(
        None, "training steps between two checkpoints; --resume continues from the last one", minimum=1
    )
    local_steps: int | None = option(
        None,
        "steps that each of several processes (torchrun) trains alone before all agree on their weights (DiLoCo); if "
        "not given, all take every step together",
        minimum=2,
    )
    seed: int | None = option(
        None,
        "seed of the initial weights and of the order of the rows; 0 if not given",
        minimum=0,
        maximum=LARGEST_SEED,
    )
    threads: int | None = thread_count()
    prompt: str | None = option(
        None,
        "text to continue at every validation, with its likeliest next words; The quick brown fox if not given",
        common=True,
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)
        if self.prompt is not None and not self.prompt.strip():
            raise RiyazError("is empty", "--prompt", "give the beginning of a sentence")

    def explicit(self) -> dict[str, Any]:
        """The options that were given: those that are not None."""
        return explicit_options(self)
