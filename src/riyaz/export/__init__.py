"""Export of models and adapters in the formats of other tools, and merging of an adapter into its base.

Each format has a module. The result is written under a temporary name and opened again; it gets its final name only if
its logits equal its source's up to rounding. All comparisons run in float32.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from riyaz import artifact as artifacts
from riyaz.adapters.gguf import FILE as ADAPTER_FILE
from riyaz.artifact import LABELS, TRAINED, Artifact
from riyaz.config import Precision
from riyaz.engine.opening import expect_memory, own_precision
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, quiet
from riyaz.export import classifier, encoder, gguf, gguf_lora, hf, mlx, modelfile, peft, readme
from riyaz.export.base import BASE_FILE, NamedBase, name_base, put_base
from riyaz.export.check import ExportResult
from riyaz.export.prompt import not_held, prompt_of
from riyaz.export.targets import Target, open_artifact, open_target, publish, text_files, with_weights, workspace
from riyaz.families import describe

ADAPTERS = {"peft": peft.write, "gguf-lora": gguf_lora.write, "mlx": mlx.write}  # formats that hold an adapter only
WHOLE = {"hf": hf.write, "gguf": gguf.write}  # formats that hold a whole model, with the adapter merged
WITH_HEADS = (*artifacts.ADAPTER_KINDS, *artifacts.CLASSIFIERS, "full")  # kinds of weights with one for labels
SCORING = ("peft", "hf")  # formats whose tool gives the hidden states that a head of labels scores
DTYPES = {"hf": ("float32", "float16", "bfloat16"), "gguf": tuple(gguf.DTYPES)}
FORMATS = (*ADAPTERS, *WHOLE, classifier.FORMAT)


def merge(artifact: Path, out: Path, dtype: str = "float32", precision: Precision = "auto") -> ExportResult:
    """Merge an artifact's adapter into its base and write a whole model in `dtype`, whose configuration names the
    `precision` in which it is served; auto: the one that the base's names, and none where that names none, or is a GGUF
    file: then it is bf16. The folder `out` is both an artifact, with the same text part, and a Hugging Face model.
    Raises RiyazError."""
    from riyaz.models import name_precision

    artifact, out = artifacts.resolve(artifact), Path(out)
    document = with_weights(artifact)
    target = open_artifact(artifact, document)
    expect_memory(target.source, "fp32", copies=2, engine="torch")
    with workspace(out) as work:
        written = hf.write(target, work, dtype)
        name_precision(work, own_precision(target.source, precision))
        files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir() if path.is_file()}
        files |= text_files(artifact, document)
        for name in (TRAINED, LABELS):
            if name in document.checksums:
                files[name] = artifact / name
        artifacts.write(out, replace(document, weights=replace(document.weights, kind="full")), files)
    return replace(written, path=str(out))


def export(
    target: str,
    format: str,
    out: Path,
    dtype: str | None = None,
    base: str | None = None,
    with_base: bool | None = None,
    listen: Listen = quiet,
    card: str | None = None,
) -> ExportResult:
    """Write a model, an artifact or an adapter's folder in one of FORMATS. `dtype` is the type of a whole model's
    weights, `base` the base model of an adapter, by default the one that it names; `with_base` puts the base beside the
    adapter, by default where the other tool cannot get it by name; README.md begins with `card`, by
    default with what the folder is. Raises RiyazError."""
    assert format in FORMATS, format
    out, folder = Path(out), artifacts.resolve(target)
    if (folder / artifacts.NAME).is_file():
        document = Artifact.read(folder)
        if document.task is not None and document.task.questions and document.weights.kind in WITH_HEADS:
            what = f"{target} answers several questions, each by a head of its own, which {format} cannot hold"
            raise RiyazError(what, "--format", "answer with riyaz decide, riyaz run or riyaz serve")
        if format == classifier.FORMAT or document.weights.kind == "linear":
            return classifier.export(folder, document, out, format, card)
    elif format == classifier.FORMAT:
        raise RiyazError("is no artifact", target, f"{classifier.FORMAT} is the format of an artifact's classifier")
    if dtype is not None and dtype not in DTYPES.get(format, ()):
        hint = f"{format} is written in {', '.join(DTYPES[format])}" if format in DTYPES else "leave --dtype out"
        raise RiyazError(f"{format} has no type {dtype}", "--dtype", hint)
    if format in WHOLE and with_base is not None:
        raise RiyazError(f"{format} holds a whole model", "--with-base", "leave it out")
    if (artifact := _encoder_in(target)) is not None and format == "hf":
        with workspace(out) as work:
            listen(Phase("export", f"{target} as {format}"))
            written = encoder.write(*artifact, work, out, dtype, card)
            publish(work, out)
        return replace(written, path=str(out))
    source = open_target(target, base)
    head = source.label_head
    if head is not None and format not in SCORING:
        what = f"{target} scores its labels by a head, which the tools of {format} do not run"
        raise RiyazError(what, "--format", "take --format peft or hf, or answer with riyaz run or riyaz serve")
    expect_memory(source.source, "fp32", copies=2, engine="torch")  # the written model is opened beside it
    named: NamedBase | None = None
    with workspace(out) as work:
        listen(Phase("export", f"{target} as {format}"))
        if format in ADAPTERS:
            named = name_base(source, out, format, with_base)
            written = ADAPTERS[format](source, work, named)
            if named.along:
                named = replace(named, note=f"{named.note} ({put_base(source, work, format)})")
        else:
            written = WHOLE[format](source, work, dtype)
        if head is not None:
            shutil.copyfile(head, work / LABELS)
        lacks = _describe(source, work, out, format, named, card)
        publish(work, out)
    notes = [source.note, named.note if named else "", *written.notes, *lacks]
    return replace(written, path=str(out), notes=tuple(filter(None, notes)))


def _encoder_in(target: str) -> tuple[Path, Artifact] | None:
    """The folder and the document of an artifact whose weights are a sentence encoder; None for any other target."""
    folder = artifacts.resolve(target)
    document = Artifact.read(folder) if (folder / artifacts.NAME).is_file() else None
    return (folder, document) if document is not None and document.weights.kind == "encoder" else None


def _describe(
    target: Target, work: Path, out: Path, format: str, named: NamedBase | None, card: str | None
) -> list[str]:
    """Write the prompt, the README and, beside GGUF, the Modelfile into `work`; returns sentences on what the export
    does not hold."""
    prompt, lacks = prompt_of(target), not_held(target.document)
    if format in ("gguf", "gguf-lora"):
        path, tokenizer = work / modelfile.MODELFILE, target.source.tokenizer()
        model, adapter = f"./{gguf.FILE}", None
        if named is not None:
            model, adapter = f"./{BASE_FILE}" if named.along else named.name, f"./{ADAPTER_FILE}"
        context = describe(target.source).config.context
        lacks += modelfile.write(path, tokenizer, prompt, model, adapter, context)
    readme.write(target, prompt, work, out, format, named, lacks, card)
    return lacks
