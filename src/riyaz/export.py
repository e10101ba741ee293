"""Taking a result away: an adapter merged into its base, a model or an adapter for other tools.

Everything is written under a temporary name, opened again and asked for its logits; only a folder that says what
its source says gets its own name. All comparisons run in float32.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz import artifact as artifacts
from riyaz.artifact import ADAPTER_KINDS, COLLECTION, EXAMPLES, Artifact, WeightsPart
from riyaz.errors import RiyazError
from riyaz.sources import Source, open_source
from riyaz.sources.files import disk_error

if TYPE_CHECKING:
    from torch import Tensor

    from riyaz.tokenizer import Tokenizer

FORMATS = ("peft", "hf")
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")
# KL(source ‖ written) in nats per token above which nothing is kept: rounding explains less
DIVERGENCE_MOST = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 0.02}
PROBE_TOKENS = 128
PROBE = """A language model reads a text and predicts how it goes on. The baker opens at seven; by nine the rolls are
gone. "Where is my parcel?" she asked for the third time. In 1969, 3 + 4 was still 7, and the river Ganges still ran
from the Himalaya to the Bay of Bengal. def area(r): return 3.14159 * r ** 2"""


@dataclass(frozen=True)
class Written:
    """What was written, and how far it is from its source on a fixed text."""

    path: str
    format: str
    dtype: str
    mb: float
    difference: float  # largest difference of a logit
    divergence: float  # KL(source ‖ written), nats per token

    def line(self) -> str:
        """All of it in one line."""
        said = f"largest logit difference {self.difference:.2g}, KL {self.divergence:.2g} nats per token"
        return f"{self.path}: {self.format}, {self.dtype}, {self.mb:,.1f} MB; opened again, {said}"


def merge(artifact: Path, out: Path, dtype: str = "float32") -> Written:
    """Write an artifact's weights as a whole model in `dtype`; the text part stays beside them, so that the folder
    is an artifact and a Hugging Face model. Raises RiyazError."""
    artifact, out = artifacts.resolve(artifact), Path(out)
    known = _with_weights(artifact)
    with _workspace(out) as work:
        source, adapter = _parts(artifact, known)
        written = _whole_model(source, adapter, work, dtype)
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir()}
        examples = known.text.examples_file or EXAMPLES
        if known.text.examples != "none":
            files[examples] = artifact / examples
        if known.text.passages:
            collection = known.text.collection_file or COLLECTION
            files[collection] = artifact / collection
        artifacts.write(out, replace(known, weights=WeightsPart("full")), files)
    return replace(written, path=str(out))


def export(target: str, format: str, out: Path) -> Written:
    """Write a model or an artifact as "hf" (a transformers folder) or an artifact's adapter as "peft". Raises
    RiyazError."""
    assert format in FORMATS, format
    out = Path(out)
    folder = artifacts.resolve(target)
    known = _with_weights(folder) if (folder / artifacts.NAME).is_file() else None
    with _workspace(out) as work:
        if format == "peft":
            written = _adapter(folder, known, work)
        else:
            source, adapter = _parts(folder, known) if known else (open_source(target), None)
            written = _whole_model(source, adapter, work, "float32" if adapter else _own_type(source))
        if out.exists():
            out.rmdir()
        os.replace(work, out)
    return replace(written, path=str(out))


def _with_weights(folder: Path) -> Artifact:
    known = Artifact.read(folder)
    if known.weights.kind in (*ADAPTER_KINDS, "full"):
        return known
    what = "copies answers" if known.weights.kind == "copy" else "changes the prompt"
    raise RiyazError(f"this artifact only {what} and has no weights of its own", str(folder), _base_hint(known))


def _base_hint(known: Artifact) -> str:
    return f"its base model is {known.base.name}" if known.base else "there is nothing to write"


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which must be free; whatever is left of it is removed."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RiyazError("already exists", str(out), "choose another --out or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        outer = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        inner = outer / "new"
        inner.mkdir()
        yield inner
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _whole_model(source: Source, adapter: Path | None, work: Path, dtype: str) -> Written:
    """A model as a Hugging Face folder, an adapter merged in float32 and the sum rounded once."""
    import torch

    from riyaz import models
    from riyaz.layers import lora

    tokenizer, model = source.tokenizer(), models.load(source, torch.float32)
    if adapter is not None:
        lora.load_peft(model, adapter)
    wanted = _logits(model, tokenizer)
    lora.merge(model)
    models.save_hf(model.to(getattr(torch, dtype)), tokenizer, work)
    del model
    reopened = open_source(work)
    found = _logits(models.load(reopened, torch.float32), reopened.tokenizer())
    return _checked(wanted, found, work, "hf", dtype)


def _own_type(source: Source) -> str:
    """The type of a model's weights where it is one that other tools load, else float32, which loses nothing."""
    types = {info.dtype for info in source.tensors.values()}
    return {"BF16": "bfloat16", "F16": "float16"}.get(types.pop(), "float32") if len(types) == 1 else "float32"


def _adapter(folder: Path, known: Artifact | None, work: Path) -> Written:
    """The artifact's adapter as PEFT reads it. rsLoRA is written as plain LoRA with the α that gives the same scale,
    because many tools ignore the switch."""
    import torch

    from riyaz import models
    from riyaz.engine.torch_load import attach

    if known is None or known.weights.kind not in ADAPTER_KINDS:
        raise RiyazError("is no artifact with an adapter", str(folder), "export it with --format hf")
    source = _base(folder, known)
    tokenizer = source.tokenizer()

    def with_adapter(place: Path) -> "Tensor":
        return _logits(attach(models.load(source, torch.float32), place), tokenizer)

    wanted = with_adapter(folder)
    config = json.loads((folder / PEFT_FILES[0]).read_text(encoding="utf-8"))
    if config.pop("use_rslora", False):
        config["lora_alpha"] *= math.sqrt(config["r"])
    (work / PEFT_FILES[0]).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(folder / PEFT_FILES[1], work / PEFT_FILES[1])
    return _checked(wanted, with_adapter(work), work, "peft", "float32")


def _parts(folder: Path, known: Artifact) -> tuple[Source, Path | None]:
    """The model an artifact runs on, and the folder of its adapter if it has one."""
    if known.weights.kind == "soft_prompt":
        what = "a soft prompt stands before every prompt and cannot be merged into the weights"
        raise RiyazError(what, str(folder), "export it with --format peft")
    return (_base(folder, known), folder) if known.weights.kind == "lora" else (open_source(folder), None)


def _base(folder: Path, known: Artifact) -> Source:
    """The model the adapter was made for."""
    assert known.base is not None
    source = open_source(known.source_name())
    if source.sha256() != known.base.sha256:
        what = f"was made for {known.base.name} ({known.base.sha256[:12]}), and that is another model now"
        raise RiyazError(what, str(folder), "pull the model it was made for")
    return source


def _logits(model: Any, tokenizer: "Tokenizer") -> "Tensor":
    """Float32 logits (T, V) on the probe text."""
    import torch

    from riyaz.layers.attention import packed

    tokens = torch.tensor(tokenizer.encode(PROBE)[:PROBE_TOKENS])
    with torch.inference_mode():
        return model.head(model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))).float()


def _checked(wanted: "Tensor", found: "Tensor", work: Path, format: str, dtype: str) -> Written:
    """The record of what was written. Raises RiyazError when it does not say what its source says."""
    p, q = wanted.log_softmax(1), found.log_softmax(1)
    divergence = max(float((p.exp() * (p - q)).sum(1).mean()), 0.0)
    if not divergence <= DIVERGENCE_MOST[dtype]:  # also when it is not a number
        what = f"opened again, the model differs by {divergence:.2g} nats per token from its source"
        raise RiyazError(what, format, "nothing was kept; try --dtype float32, or report a bug")
    size = sum(path.stat().st_size for path in work.iterdir()) / 2**20
    return Written(str(work), format, dtype, size, float((wanted - found).abs().max()), divergence)
