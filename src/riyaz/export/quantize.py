"""A model or an artifact with its weights in 8 or 4 bits, and what that costs on general text.

The weights are written as a GGUF file that is served as it is: Q8_0 for int8; for int4 Q4_1, or Q4_0 without minimums,
in groups of `gguf_groups`, and Q8_0 for the embedding and the head, where 4 bits would lose the most. An artifact
without a whole model of its own gets its base beside it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from riyaz import artifact as artifacts
from riyaz import hardware
from riyaz.adapters import CONFIG
from riyaz.artifact import BASE_FILE, QUANTISED, Artifact, BaseModel
from riyaz.config import Precision
from riyaz.data.general_text import general_text
from riyaz.drift import requests_of, text_blocks
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.native.formats import PIECE
from riyaz.engine.runner import TokenRun, Whole
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, Progress, quiet
from riyaz.export.check import same_tokenizer
from riyaz.export.gguf import OUTER, POSITIONS, model_metadata
from riyaz.export.targets import publish, workspace
from riyaz.export.ternary import refuse
from riyaz.families import FAMILIES, Family, describe
from riyaz.predictor import PromptedModel, open_target
from riyaz.sources import Source, gguf_groups, gguf_write, open_source
from riyaz.sources.gguf_vocabulary import tokenizer_metadata
from riyaz.sources.tensor_files import float32

FILE_TYPES = {"Q8_0": 7, "Q4_0": 2, "Q4_1": 3}  # general.file_type
READ = 64  # tokens whose distributions are in memory: a multiple of the engine's pages


@dataclass(frozen=True)
class Small:
    """The form of the new weights; `group` (columns with one scale) and `minimum` (beside each scale) are of int4."""

    precision: Literal["int8", "int4"]
    group: gguf_groups.Group = 32
    minimum: bool = True

    @property
    def dtype(self) -> str:
        """The type of the matrices in the file."""
        return "Q8_0" if self.precision == "int8" else gguf_groups.dtype_of(self.minimum)

    @property
    def bits(self) -> float:
        """Bits of a weight in memory."""
        return 8.5 if self.precision == "int8" else gguf_groups.bits(self.group, self.minimum)

    def __str__(self) -> str:
        groups = f" in groups of {self.group}" if self.precision == "int4" else ""
        return f"{self.precision}{groups}{'' if self.minimum else ' without minimums'}"


@dataclass(frozen=True)
class Quantised:
    """What was written, and how far it is from the same in bf16 on general text."""

    path: str
    precision: str
    group: int  # columns with one scale
    minimum: bool  # whether there is a minimum beside each scale
    bits: float  # of a weight of the layers in memory
    mb: float  # MiB of all files
    perplexity: float
    perplexity_bf16: float
    divergence: float  # KL(bf16 ‖ quantised), nats per token
    tokens: int  # that were compared

    def line(self) -> str:
        """The result in one line, for the terminal."""
        cost = f"perplexity {self.perplexity:.4g}, {self.perplexity_bf16:.4g} in bf16; KL {self.divergence:.2g} nats"
        form = Small(self.precision, self.group, self.minimum)  # type: ignore[arg-type]
        size = f"{form}, {self.bits:g} bits a weight, {self.mb:,.1f} MB"
        return f"{self.path}: {size}; {cost} per token of {self.tokens:,} of general text"


def quantize(target: str, form: Small, out: Path, base: str | None = None, listen: Listen = quiet) -> Quantised:
    """Write a model, or an artifact, with its weights in `form`, and compare it with the same in bf16, for which a file
    with 16 KB for each token of the vocabulary lies beside `out` for a while. `base` is the base of an artifact where
    it has moved. Raises RiyazError."""
    if form.precision != "int4" and form != Small(form.precision):
        raise RiyazError("groups and minimums are chosen for int4 only", hint="leave out --group and --symmetric")
    folder = artifacts.resolve(target)
    document = Artifact.read(folder) if (folder / artifacts.NAME).is_file() else None
    if document is None and (folder / CONFIG).is_file():
        raise RiyazError("an adapter alone has no weights to make smaller", str(folder), "quantise its base")
    if document is not None and document.weights.kind in artifacts.MODEL_FREE:
        raise RiyazError("this artifact has no language model", str(folder), "choose another artifact")
    if document is None:
        source = open_source(target)
    else:
        source = open_source(folder) if document.weights.kind == "full" else _base(document, base)
    _expect_larger(source, form)
    with workspace(out) as work:
        listen(Phase("quantise", f"{source.name} in {form}"))
        write(source, work / QUANTISED, form)
        listen(Phase("quantise", "comparing it with bf16 on general text"))
        # one model after the other, so that there is never more than one in memory
        blocks = general_text_blocks(source)
        before = read_text(_opened(target, base, "bf16"), blocks, work.parent / "before", listen)
        made = work
        if document is not None:
            made = work.parent / "artifact"
            artifacts.write(made, *_artifact(document, folder, work / QUANTISED))
        bf16, small, divergence, tokens = compared(before, _opened(made), listen)
        publish(made, out)  # last, so that a command that is killed before can be given again
    size = sum(path.stat().st_size for path in out.iterdir()) / 2**20
    return Quantised(
        str(out), form.precision, form.group, form.minimum, form.bits, size, math.exp(small), math.exp(bf16),
        divergence, tokens,
    )  # fmt: skip


def write(source: Source, path: Path, form: Small) -> None:
    """Write the model of a source as a GGUF file with small weights. Raises RiyazError if its tokenizer does not come
    back from the file."""
    family, tokenizer = describe(source), source.tokenizer()
    module, config = FAMILIES[family.model_type], family.config
    metadata, divisors = model_metadata(module, config, source)
    metadata |= {
        "general.type": "model", "general.name": source.name, "general.file_type": FILE_TYPES[form.dtype],
        "general.quantization_version": 2, **tokenizer_metadata(source, tokenizer, config.vocab_size),
    }  # fmt: skip
    if form.group != Small(form.precision).group:
        metadata[gguf_groups.KEY] = form.group
    tensors = [
        _planned(family, name, stored, form)
        for name, stored in module.names(config).items()
        if name in family.stored_names
    ]
    gguf_write.write(path, metadata, [*tensors, *divisors])
    same_tokenizer(tokenizer, open_source(path).tokenizer(), "gguf")


@dataclass(frozen=True)
class ReadText:
    """What a model says of general text: the text in blocks, and a file of its log-softmax at every token, float32."""

    requests: list[Request]
    answers: list[list[int]]
    path: Path


def general_text_blocks(source: Source) -> list[list[int]]:
    """The blocks of general text that the source's model reads. Encoding all of it takes 100 MB for a while: more than
    a small model, and so not beside one."""
    blocks = text_blocks(source.tokenizer(), describe(source).config.context, general_text(None))
    hardware.trim()
    return blocks


def read_text(model: PromptedModel, blocks: Sequence[list[int]], path: Path, listen: Listen = quiet) -> ReadText:
    """Read blocks of general text with a model, and write into `path` what it says of them: a row of the vocabulary's
    size for each of about 4,096 tokens."""
    requests, answers = requests_of(model, blocks)
    with open(path, "wb") as file:
        for place, (request, answer) in enumerate(zip(requests, answers)):
            for _, log_p in _pieces(model.lm, request, answer):
                file.write(np.ascontiguousarray(log_p, np.float32).data)
            listen(Progress("quantise", place + 1, 2 * len(requests)))
    return ReadText(requests, answers, path)


def compared(before: ReadText, after: PromptedModel, listen: Listen = quiet) -> tuple[float, float, float, int]:
    """(nats per token of general text before, after, KL(before ‖ after) in nats per token, tokens)."""
    blocks = len(before.requests)
    sums, count = np.zeros(3), 0
    with open(before.path, "rb") as file:
        for place, (request, answer) in enumerate(zip(before.requests, before.answers)):
            for first, q in _pieces(after.lm, replace(request, adapter=after.adapter), answer):
                p = np.frombuffer(file.read(4 * q.size), np.float32).reshape(q.shape)
                said = np.arange(len(p)), answer[first : first + len(p)]
                sums[:2] -= p[said].sum(dtype=np.float64), q[said].sum(dtype=np.float64)
                sums[2] += (np.exp(p) * (p - q)).sum(dtype=np.float64)
            count += len(answer)
            listen(Progress("quantise", blocks + place + 1, 2 * blocks))
    nats, small, divergence = (sums / count).tolist()
    return nats, small, max(divergence, 0.0), count


def _opened(target: str | Path, base: str | None = None, precision: Precision = "auto") -> PromptedModel:
    model = open_target(target, base, precision)
    assert model.has_model
    return model


def _pieces(lm: Engine, request: Request, answer: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first token, log-softmax (n, V) at it and the tokens after it) of an answer, as `Engine.distributions`,
    but READ tokens at a time."""
    tokens, before = (*request.tokens, *answer[:-1]), len(request.tokens) - 1
    sequence = lm.runner.open(request.adapter)
    try:
        for begin in range(0, len(tokens), READ):
            run = tokens[begin : begin + READ]
            first = max(begin, before)
            wanted = Whole(np.arange(first - begin, len(run)))
            if len(wanted.rows):
                yield first - before, lm.runner.forward([TokenRun(sequence, run, wanted, together=True)])[0]
            else:
                lm.runner.forward([TokenRun(sequence, run)])
    finally:
        lm.runner.close(sequence)


def _base(document: Artifact, base: str | None) -> Source:
    """The base of an artifact. Raises RiyazError if it is another model."""
    assert document.base is not None
    source = open_source(base or document.source_name())
    if source.sha256() != document.base.sha256:
        raise RiyazError(f"was made for {document.base.name}, which has other weights now", str(source.path))
    return source


def _expect_larger(source: Source, form: Small) -> None:
    """Raises RiyazError if the matrices of the model's layers take no more bits in memory than they would."""
    family = describe(source)
    names = FAMILIES[family.model_type].names(family.config)
    stored = [source.tensors[own] for name, own in family.stored_names.items() if names[name] not in OUTER]
    matrices = [info for info in stored if len(info.shape) > 1]
    refuse(source, f"{form} would round the floats from which its weights are rounded", "take --precision ternary")
    group = gguf_groups.group_of(source.metadata)
    sizes = [gguf_groups.bits_of(info, group) * math.prod(info.shape) for info in matrices]
    bits = sum(sizes) / sum(math.prod(info.shape) for info in matrices)
    if bits <= form.bits:
        what = f"its weights have {bits:.3g} bits each already, and {form} would make them no smaller"
        raise RiyazError(what, str(source.path), "it is served as it is stored")


def _artifact(document: Artifact, folder: Path, written: Path) -> tuple[Artifact, dict[str, Path | bytes]]:
    """The artifact with the written weights in place of its own, or as its base, and its files."""
    files: dict[str, Path | bytes] = {name: folder / name for name in document.checksums}
    if document.weights.kind != "full":
        source = open_source(written)
        base = BaseModel(
            source.name, str(folder / BASE_FILE), source.sha256(), describe(source).parameters,
            source.tokenizer().template,
        )  # fmt: skip
        return replace(document, base=base), files | {BASE_FILE: written}
    text = document.text
    copied = {
        artifacts.EXAMPLES, artifacts.COLLECTION, artifacts.TRAINED, artifacts.LABELS, text.examples_file,
        text.collection_file,
    }  # fmt: skip
    return document, {name: path for name, path in files.items() if name in copied} | {QUANTISED: written}


def _planned(family: Family[Any], name: str, stored: str, form: Small) -> gguf_write.PlannedTensor:
    """A tensor of the file, read when it is written."""
    module = FAMILIES[family.model_type]
    shape = module.layer_plan(family.config)[name]
    kind = "F32" if stored == POSITIONS else "Q8_0" if stored in OUTER else form.dtype
    dtype = gguf_write.dtype_for(kind, shape)
    grouped = dtype in ("Q4_0", "Q4_1")

    def finite(array: np.ndarray) -> np.ndarray:
        if not np.isfinite(array).all():
            raise family.not_finite(name)
        return array

    def values() -> np.ndarray:
        family.source.release()  # pages of the file that were read before
        array = finite(module.to_gguf_layout(family.config, name, float32(*family.array(name))))
        return gguf_groups.quantise(array, form.group, form.minimum) if grouped else array

    def pieces() -> Iterator[np.ndarray]:
        for _, kind, array in family.pieces(name, PIECE):
            yield finite(float32(kind, array))
            family.source.release()

    # the largest matrices, whose rows every family keeps in their order
    large = stored in OUTER and len(shape) > 1
    return gguf_write.PlannedTensor(stored, shape, dtype, pieces if large else values, encoded=grouped)
