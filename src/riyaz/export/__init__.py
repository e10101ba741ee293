"""Taking a result away: an adapter merged into its base, a model or an adapter for other tools.

A format is one file here. Everything is written under a temporary name, opened again and asked for its logits; only a
folder that says what its source says gets its own name. All comparisons run in float32.
"""

from dataclasses import replace
from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.artifact import COLLECTION, EXAMPLES, WeightsPart
from riyaz.errors import RiyazError
from riyaz.export import gguf, gguf_lora, hf, mlx, peft
from riyaz.export.check import Written
from riyaz.export.targets import open_artifact, open_target, publish, with_weights, workspace

ADAPTERS = {"peft": peft.write, "gguf-lora": gguf_lora.write, "mlx": mlx.write}  # of the adapter alone
WHOLE = {"hf": hf.write, "gguf": gguf.write}  # of the whole model, an adapter merged
DTYPES = {"hf": ("float32", "float16", "bfloat16"), "gguf": tuple(gguf.DTYPES)}
FORMATS = (*ADAPTERS, *WHOLE)
PEFT_FILES = peft.FILES


def merge(artifact: Path, out: Path, dtype: str = "float32") -> Written:
    """Write an artifact's weights as a whole model in `dtype`; the text part stays beside them, so that the folder
    is an artifact and a Hugging Face model. Raises RiyazError."""
    artifact, out = artifacts.resolve(artifact), Path(out)
    known = with_weights(artifact)
    with workspace(out) as work:
        written = hf.write(open_artifact(artifact, known), work, dtype)
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir() if path.is_file()}
        examples = known.text.examples_file or EXAMPLES
        if known.text.examples != "none":
            files[examples] = artifact / examples
        if known.text.passages:
            collection = known.text.collection_file or COLLECTION
            files[collection] = artifact / collection
        artifacts.write(out, replace(known, weights=WeightsPart("full")), files)
    return replace(written, path=str(out))


def export(target: str, format: str, out: Path, dtype: str | None = None, base: str | None = None) -> Written:
    """Write a model, an artifact or an adapter's folder in one of FORMATS; `dtype` is for whole models, `base` says
    where an adapter's base is. Raises RiyazError."""
    assert format in FORMATS, format
    out = Path(out)
    if dtype is not None and dtype not in DTYPES.get(format, ()):
        known = f"{format} is written in {', '.join(DTYPES[format])}" if format in DTYPES else "leave --dtype out"
        raise RiyazError(f"{format} has no type {dtype}", "--dtype", known)
    opened = open_target(target, base)
    with workspace(out) as work:
        written = ADAPTERS[format](opened, work) if format in ADAPTERS else WHOLE[format](opened, work, dtype)
        publish(work, out)
    return replace(written, path=str(out), note=opened.note)
