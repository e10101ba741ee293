"""How far what was written is from its source: both are asked the same text, in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from torch import Tensor

    from riyaz.tokenizer import Tokenizer

# KL(source ‖ written) in nats per token above which nothing is kept: rounding explains less
DIVERGENCE_MOST = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 0.02, "q8_0": 0.05, "q4_0": 1.0}
PROBE_TOKENS = 128
PROBE = """A language model reads a text and predicts how it goes on. The baker opens at seven; by nine the rolls are
gone. "Where is my parcel?" she asked for the third time. In 1969, 3 + 4 was still 7, and the river Ganges still ran
from the Himalaya to the Bay of Bengal. def area(r): return 3.14159 * r ** 2"""
SAMPLES = (
    PROBE,
    "cafe\u0301 caf\u00e9",  # two spellings of one letter
    "  I'll'VE 2024年, naïve Ünïcödé — नमस्ते 🙂\r\n\tif x:\n\n\n    pass  ",
    "don't\u00a0stop ١٢٣45678 <|im_end|></s> A",
)
CHAT = [{"role": "user", "content": "Hello  there"}, {"role": "assistant", "content": "Hi."}]


@dataclass(frozen=True)
class Written:
    """What was written, and how far it is from its source on a fixed text."""

    path: str
    format: str
    dtype: str
    mb: float
    difference: float  # largest difference of a logit
    divergence: float  # KL(source ‖ written), nats per token
    note: str = ""  # what could not be checked, in one line

    def line(self) -> str:
        """All of it in one line."""
        said = f"largest logit difference {self.difference:.2g}, KL {self.divergence:.2g} nats per token"
        return f"{self.path}: {self.format}, {self.dtype}, {self.mb:,.1f} MB; opened again, {said}"


def logits(model: Any, tokenizer: "Tokenizer") -> "Tensor":
    """Float32 logits (T, V) on the probe text."""
    import torch

    from riyaz.layers.attention import packed

    tokens = torch.tensor(tokenizer.encode(PROBE)[: min(PROBE_TOKENS, model.config.context)])
    with torch.inference_mode():
        return model.head(model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))).float()


def divergence(wanted: "Tensor", found: "Tensor") -> float:
    """KL(wanted ‖ found) of two sets of logits (T, V), nats per token."""
    p, q = wanted.log_softmax(1), found.log_softmax(1)
    return max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)


def checked(wanted: "Tensor", found: "Tensor", work: Path, format: str, dtype: str) -> Written:
    """The record of what was written. Raises RiyazError when it does not say what its source says."""
    apart = divergence(wanted, found)
    if not apart <= DIVERGENCE_MOST[dtype]:  # also when it is not a number
        what = f"opened again, the model differs by {apart:.2g} nats per token from its source"
        raise RiyazError(what, format, "nothing was kept; try --dtype float32, or report a bug")
    size = sum(path.stat().st_size for path in work.iterdir()) / 2**20
    return Written(str(work), format, dtype, size, float((wanted - found).abs().max()), apart)


def same_tokenizer(wanted: "Tokenizer", found: "Tokenizer", format: str) -> None:
    """Raises RiyazError when two tokenizers give other ids to texts or to a conversation, or end elsewhere."""
    wrong = [f"{text[:20]!r}…" for text in SAMPLES if wanted.encode(text) != found.encode(text)]
    if wanted.render([CHAT]) != found.render([CHAT]):
        wrong.append("the chat template")
    if wanted.eos_ids != found.eos_ids:
        wrong.append(f"the end tokens {sorted(wanted.eos_ids)}, which came back as {sorted(found.eos_ids)}")
    if wrong:
        what = f"opened again, the tokenizer has other ids for {', '.join(wrong)}"
        raise RiyazError(what, format, "nothing was kept; try --format hf, or report a bug")
