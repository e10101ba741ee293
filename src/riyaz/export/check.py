"""The check of an export: the logits of the written model and of its source on the same text, in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from torch import Tensor

    from riyaz.text.tokenizer import Tokenizer

# KL(source ‖ written) in nats per token above which an export is deleted; rounding causes less
MAX_DIVERGENCE = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 0.02, "q8_0": 0.05, "q4_k_m": 0.5, "q4_0": 1.0}
MAX_DIVERGENCE |= {"tq2_0": 0.02, "tq1_0": 0.02}  # scales in half precision
PROBE_TOKENS = 128
PROBE = """A language model reads a text and predicts how it goes on. The baker opens at seven; by nine the rolls are
gone. "Where is my parcel?" she asked for the third time. In 1969, 3 + 4 was still 7, and the river Ganges still ran
from the Himalaya to the Bay of Bengal. def area(r): return 3.14159 * r ** 2"""
SAMPLES = (
    PROBE,
    "cafe\u0301 caf\u00e9",  # the same letter, as two characters and as one
    "  I'll'VE 2024年, naïve Ünïcödé — नमस्ते 🙂\r\n\tif x:\n\n\n    pass  ",
    "don't\u00a0stop ١٢٣45678 <|im_end|></s> A",
)
CHAT = [{"role": "user", "content": "Hello  there"}, {"role": "assistant", "content": "Hi."}]


@dataclass(frozen=True)
class ExportResult:
    """The written file or folder, and how far its logits are from its source's on a fixed text."""

    path: str
    format: str
    dtype: str
    mb: float  # MiB of all files
    difference: float  # largest absolute difference of a logit
    divergence: float  # KL(source ‖ written), nats per token
    notes: tuple[str, ...] = ()  # lines on what could not be checked, where the base is, what the format does not hold

    def line(self) -> str:
        """The result in one line, for the terminal."""
        distance = f"largest logit difference {self.difference:.2g}, KL {self.divergence:.2g} nats per token"
        return f"{self.path}: {self.format}, {self.dtype}, {self.mb:,.1f} MB; opened again, {distance}"


def logits(model: Any, tokenizer: "Tokenizer") -> "Tensor":
    """Float32 logits (T, V) on PROBE, T at most PROBE_TOKENS."""
    import torch

    from riyaz.layers.attention import packed

    tokens = torch.tensor(tokenizer.encode(PROBE)[: min(PROBE_TOKENS, model.config.context)])
    with torch.inference_mode():
        return model.head(model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))).float()


def divergence(source: "Tensor", written: "Tensor") -> float:
    """KL(source ‖ written) of two sets of logits (T, V), in nats per token."""
    p, q = source.log_softmax(1), written.log_softmax(1)
    return max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)


def checked_export(source: "Tensor", written: "Tensor", work: Path, format: str, dtype: str) -> ExportResult:
    """The result of an export to `work`, from the logits (T, V) of its source and of itself, opened again. Raises
    RiyazError if the two differ by more than rounding to `dtype` explains."""
    nats = divergence(source, written)
    if not nats <= MAX_DIVERGENCE[dtype]:  # also if it is NaN
        what = f"opened again, the model differs by {nats:.2g} nats per token from its source"
        raise RiyazError(what, format, "nothing was kept; try --dtype float32, or report a bug")
    size = sum(path.stat().st_size for path in work.iterdir()) / 2**20
    return ExportResult(str(work), format, dtype, size, float((source - written).abs().max()), nats)


def same_tokenizer(source: "Tokenizer", written: "Tokenizer", format: str) -> None:
    """Raise RiyazError if two tokenizers differ in the ids of sample texts, in a rendered chat or in the end tokens."""
    wrong = [f"{text[:20]!r}…" for text in SAMPLES if source.encode(text) != written.encode(text)]
    if source.render([CHAT]) != written.render([CHAT]):
        wrong.append("the chat template")
    if source.eos_ids != written.eos_ids:
        wrong.append(f"the end tokens {sorted(source.eos_ids)}, which came back as {sorted(written.eos_ids)}")
    if wrong:
        what = f"opened again, the tokenizer has other ids for {', '.join(wrong)}"
        raise RiyazError(what, format, "nothing was kept; try --format hf, or report a bug")
