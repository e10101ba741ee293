"""Export of models and adapters in the formats of other tools, and merging of an adapter into its base.

Each format has a module. The result is written under a temporary name and opened again; it gets its final name only if
its logits equal its source's up to rounding. All comparisons run in float32.
"""

from dataclasses import replace
from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.artifact import COLLECTION, EXAMPLES, TRAINED, WeightsPart
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, quiet
from riyaz.export import gguf, gguf_lora, hf, mlx, peft
from riyaz.export.check import ExportResult
from riyaz.export.targets import open_artifact, open_target, publish, with_weights, workspace

ADAPTERS = {"peft": peft.write, "gguf-lora": gguf_lora.write, "mlx": mlx.write}  # formats that hold an adapter only
WHOLE = {"hf": hf.write, "gguf": gguf.write}  # formats that hold a whole model, with the adapter merged
DTYPES = {"hf": ("float32", "float16", "bfloat16"), "gguf": tuple(gguf.DTYPES)}
FORMATS = (*ADAPTERS, *WHOLE)


def merge(artifact: Path, out: Path, dtype: str = "float32") -> ExportResult:
    """Merge an artifact's adapter into its base and write a whole model in `dtype`. The folder `out` is both an
    artifact, with the same text part, and a Hugging Face model. Raises RiyazError."""
    artifact, out = artifacts.resolve(artifact), Path(out)
    document = with_weights(artifact)
    with workspace(out) as work:
        written = hf.write(open_artifact(artifact, document), work, dtype)
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir() if path.is_file()}
        examples = document.text.examples_file or EXAMPLES
        if document.text.examples != "none":
            files[examples] = artifact / examples
        if document.text.passages:
            collection = document.text.collection_file or COLLECTION
            files[collection] = artifact / collection
        if TRAINED in document.checksums:
            files[TRAINED] = artifact / TRAINED
        artifacts.write(out, replace(document, weights=WeightsPart("full")), files)
    return replace(written, path=str(out))


def export(
    target: str, format: str, out: Path, dtype: str | None = None, base: str | None = None, listen: Listen = quiet
) -> ExportResult:
    """Write a model, an artifact or an adapter's folder in one of FORMATS. `dtype` is the type of a whole model's
    weights, `base` the base model of an adapter, by default the one that it names. Raises RiyazError."""
    assert format in FORMATS, format
    out = Path(out)
    if dtype is not None and dtype not in DTYPES.get(format, ()):
        hint = f"{format} is written in {', '.join(DTYPES[format])}" if format in DTYPES else "leave --dtype out"
        raise RiyazError(f"{format} has no type {dtype}", "--dtype", hint)
    source = open_target(target, base)
    with workspace(out) as work:
        listen(Phase("export", f"{target} as {format}"))
        written = ADAPTERS[format](source, work) if format in ADAPTERS else WHOLE[format](source, work, dtype)
        publish(work, out)
    return replace(written, path=str(out), note=source.note)
