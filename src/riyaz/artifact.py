"""The folder that an adaptation writes: a text part and a weights part, described by `riyaz.json`.

    riyaz.json           its parts, base model, data and settings, and a checksum of every file
    examples.jsonl       examples of the text part, or of the weights part `copy`
    examples_index.*     of the weights part `copy`: how examples are compared, and their sentence vectors
    classifier.*         weights part `linear`, and beside `encoder`: features, weights and temperature
    encoder.*            weights part `encoder`: factors, and the labels' vectors, beside the encoder's own files
    classifier-0.*, …    the same for each question, where the task has several
    schema.json          the JSON schema that generated answers keep to
    collection.sqlite    documents that the text part retrieves from
    training_rows.txt    hashes of the prompts of its training and validation rows
    labels.safetensors   the head that scores the labels of a closed set in one pass
    adapter_*.{json,safetensors}   weights part `lora` or `soft_prompt`, in PEFT's format
    model.safetensors, config.json, tokenizer files   weights part `full`, in Hugging Face's format

An artifact is opened by its parts alone, whichever method made it.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from riyaz import folders
from riyaz.config import TOOLS
from riyaz.data import Example, Reading
from riyaz.data.schema import read_schema
from riyaz.data.task import Task
from riyaz.errors import RiyazError, shown
from riyaz.files import chunks, disk_error, encoded, file_sha256, is_bare, sync_folder, write_synced
from riyaz.json_files import from_json, json_line, read_json, read_lines, refuse_newer, to_json

NAME = "riyaz.json"
QUANTISED, BASE_FILE = "model.gguf", "base.gguf"  # that riyaz quantize writes: a whole model, or the base beside it
COMPARED = "compare.json"  # `results.COMPARE`: who opens a model does not wait until all results are imported
COLLECTION = "collection.sqlite"
TRAINED = "training_rows.txt"
LABELS = "labels.safetensors"
SCHEMA = "schema.json"
KEY_DIGITS = 16  # of the hexadecimal `Example.key` that are kept of each row
FORMAT = 1  # number of the folder's format; absent: 1; a newer one is refused
EXAMPLES = "examples.jsonl"
EXAMPLE_KINDS = ("none", "fixed", "nearest")
ADAPTER_KINDS = ("lora", "soft_prompt")  # stored as an adapter in PEFT's format, without the base's weights
CLASSIFIERS = ("linear", "encoder")  # which have a temperature of their own
MODEL_FREE = ("copy", *CLASSIFIERS)  # which answer without a language model, so they name no base
WEIGHT_KINDS = ("none", *ADAPTER_KINDS, "full", *MODEL_FREE)
EXAMPLES_INDEX, EXAMPLES_VECTORS = "examples_index.json", "examples_index.safetensors"
CLASSIFIER, CLASSIFIER_WEIGHTS = "classifier.json", "classifier.safetensors"
ENCODER, ENCODER_WEIGHTS = "encoder.json", "encoder.safetensors"
TAMPERED = "the folder was changed after it was written; make it again or copy it again"


@dataclass(frozen=True)
class TextPart:
    """The prompt around a question; `examples`: "none", "fixed" (all of the file), "nearest" (the k nearest).

    `passages` is the number of retrieved passages before the question. With `span_words` the answer is the likeliest
    run of at most `span_words` words in them, or one of the `common` answers, to whose log-probability in nats
    `common_offset` is added; where answers are generated, `common` ones are drafts. `schema_file` holds the schema of
    the task, which riyaz.json itself does not.
    """

    instruction: str = ""
    list_labels: bool = False
    examples: str = "none"
    k: int = 0
    examples_file: str | None = None
    passages: int = 0
    collection_file: str | None = None
    span_words: int = 0
    common: tuple[str, ...] = ()
    common_offset: float = 0.0
    schema_file: str | None = None


@dataclass(frozen=True)
class WeightsPart:
    """The kind of weights: "none", "lora", "soft_prompt" or "full"; without a language model "copy" (the nearest
    example's answer), "linear" (a logistic regression) or "encoder" (a fine-tuned sentence encoder).

    With `label_head` the file LABELS has one row of numbers for each label of the closed set: their products with the
    hidden state after the prompt are the labels' logits. `beside` names a classifier, one of CLASSIFIERS, whose files
    are in the same folder: its log-probabilities, times `factor`, are added to those of the head.
    """

    kind: str = "none"
    label_head: bool = False
    beside: str = ""
    factor: float = 0.0


@dataclass(frozen=True)
class BaseModel:
    """The model an artifact was made for; `sha256` covers its weight files, `template` is its chat template."""

    name: str
    path: str
    sha256: str
    parameters: int
    template: str | None = None


@dataclass(frozen=True)
class Artifact:
    """The content of `riyaz.json`; `calibrated`: label log-probabilities are corrected by a null prompt's, else by
    `label_offsets` (L,), if there are any.

    `temperature` divides the scores of a closed set's labels, so that their softmax is the probability that each is
    right; None where it was not fitted. `temperatures` are those of the task's questions, none where they are 1.
    """

    method: str
    text: TextPart = TextPart()
    weights: WeightsPart = WeightsPart()
    base: BaseModel | None = None
    task: Task | None = None
    calibrated: bool = False
    temperature: float | None = None
    temperatures: tuple[float, ...] = ()
    max_new_tokens: int = 256
    label_offsets: tuple[float, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Artifact":
        """The artifact in `folder`, with every checksum verified. Raises RiyazError naming the invalid file."""
        path = Path(folder) / NAME
        if not path.is_file():
            raise RiyazError(f"the folder holds no {NAME}", str(folder), "give the folder of an artifact")
        document = read_json(path, TAMPERED)
        if not isinstance(document, dict) or (number := document.pop("format", 1)) != FORMAT:
            refuse_newer(number if isinstance(document, dict) else None, FORMAT, str(path))
            raise RiyazError("is of another format", str(path), "it was written by another version of riyaz")
        artifact = from_json(cls, document, str(path), TAMPERED)
        _check_values(artifact, str(path))
        for name, wanted in artifact.checksums.items():
            _verify(Path(folder), name, wanted)
        return _with_schema(artifact, Path(folder))

    def source_name(self) -> str:
        """The base's path if it exists, else its name."""
        assert self.base is not None
        return self.base.path if Path(self.base.path).exists() else self.base.name


def resolve(target: str | Path) -> Path:
    """The folder that a target names: `COMPARISON/METHOD` is the artifact of an arm, `COMPARISON` that of the picked
    one; any other path is that path. Raises RiyazError when nothing was picked, or an arm is unknown or left nothing.

    `COMPARISON/arms/METHOD`, with or without `/kept` or `/artifact` behind it, is the arm's artifact too.
    """
    path = Path(target)
    if (path / NAME).is_file():
        return path
    if (path / COMPARED).is_file():
        from riyaz.results import Comparison

        pick = Comparison.read(path / COMPARED).pick
        if pick is None:
            raise RiyazError("the comparison picked no arm", str(path), _named_arms(path))
        return _arm(path, pick, path)
    arm = path
    for part in ("artifact", "kept"):
        arm = arm.parent if arm.name == part else arm
    if arm.parent.name == "arms":
        return _arm(arm.parent.parent, arm.name, path)
    named = arm == path and not path.exists() and (path.parent / "arms").is_dir()
    inside = len(path.parts) > 1 or (path.parent / "arms" / path).is_dir()  # else it may be the name of a model
    return _arm(path.parent, path.name, path) if named and inside else path


def _arm(folder: Path, method: str, target: Path) -> Path:
    """The folder of an arm's artifact; `target` is what was question_count for."""
    artifact = folder / "arms" / method / "kept" / "artifact"
    if not is_bare(method) or not artifact.parent.parent.is_dir():
        raise RiyazError(f"the comparison has no arm {shown(method)}", str(target), _named_arms(folder))
    if not (artifact / NAME).is_file():
        raise RiyazError(f"the arm {method} left no artifact", str(target), _named_arms(folder))
    return artifact


def _named_arms(folder: Path) -> str:
    """The hint that names every arm of a comparison that left an artifact."""
    arms = [path.parent.parent.parent.name for path in (folder / "arms").glob(f"*/kept/artifact/{NAME}")]
    if not arms:
        return "no arm of it left an artifact"
    return "name one of its arms: " + ", ".join(str(folder / method) for method in sorted(arms))


def write(folder: Path, artifact: Artifact, files: Mapping[str, Path | bytes]) -> Artifact:
    """Write an artifact's folder atomically, replacing an older artifact; returns the artifact with its checksums.

    `files` gives each file of the folder as bytes or as a file to copy; that of the task's schema is added. Raises
    RiyazError when the disk is full or the folder holds anything but an artifact.
    """
    folder = Path(folder).absolute()
    assert all(is_bare(name) and name != NAME for name in files), files.keys()
    if folder.exists() and not (folder / NAME).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RiyazError("exists and is not an artifact", str(folder), "choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folders.temporary(folder.parent, folders.beside(folder)) as work:
            new, old = work / "new", work / "old"
            stored, files = _without_schema(artifact, files)
            new.mkdir()
            sums = {
                name: write_synced(new / name, [content] if isinstance(content, bytes) else _copied(content))
                for name, content in files.items()
            }
            described = to_json({"format": FORMAT, **asdict(replace(stored, checksums=sums))}, indent=2) + "\n"
            artifact = replace(artifact, text=stored.text, checksums=sums)
            write_synced(new / NAME, [encoded(described)])
            sync_folder(new)
            try:
                if folder.exists():
                    os.replace(folder, old)
                os.replace(new, folder)
            finally:
                if old.exists() and not folder.exists():  # interrupted between the two renames
                    os.replace(old, folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise disk_error(error, folder) from error
    return artifact


def _copied(path: Path) -> Iterator[bytes]:
    """The bytes of a file that an artifact takes. Raises RiyazError, since an OSError would name the artifact."""
    try:
        yield from chunks(path)
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path), "nothing was kept") from error


def examples_bytes(examples: Sequence[Example]) -> bytes:
    """The examples as JSON Lines, without what their answers are checked by: no prompt needs it, and it names paths of
    this machine."""
    return b"".join(json_line(replace(example, check=None).to_record()) for example in examples)


def read_examples(path: Path, hint: str = TAMPERED, answered: bool = True) -> tuple[Example, ...]:
    """The examples of a file that `examples_bytes` wrote, each with an answer if they are `answered`. Raises RiyazError
    naming file and line."""
    examples = []
    for where, record in read_lines(Path(path), hint):
        try:
            example = Example.from_record(record)
            assert all(isinstance(turn["content"], str) for turn in example.messages)
            assert example.answers or not answered
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise RiyazError("is not an example", where, hint) from error
        examples.append(example)
    return tuple(examples)


def reading_of(target: str | Path) -> Reading | None:
    """How the rows were read that an artifact, or the one that a comparison picked, was made from; None for a model.
    Raises RiyazError for a damaged one."""
    document = _described(target, "config", "reading", "columns")
    where = f"{resolve(target) / NAME}: config.reading.columns"
    return None if document is None else from_json(Reading, document, where, TAMPERED)


def has_confidence(target: str | Path) -> bool:
    """Whether the answers of an artifact, or of the one that a comparison picked, have a confidence and a runner-up:
    labels of a closed set, with a temperature or from a classifier. Raises RiyazError for a damaged one."""
    calibrated = _described(target, "temperature") is not None or _described(target, "weights", "kind") in CLASSIFIERS
    return calibrated and bool(_described(target, "task", "kind") == "closed")


def keeps_to_schema(target: str | Path) -> bool:
    """Whether the answers of an artifact, or of the one that a comparison picked, are generated under a JSON schema.
    Raises RiyazError for a damaged one."""
    generated = _described(target, "weights", "kind") not in MODEL_FREE
    return generated and _described(target, "text", "schema_file") is not None


def of_question(name: str, number: int | None) -> str:
    """The name of a classifier's file for one of several questions, `classifier-2.json`; without one that of a closed
    set's."""
    stem, dot, suffix = name.partition(".")
    return name if number is None else f"{stem}-{number}{dot}{suffix}"


def _described(target: str | Path, *keys: str) -> Any:
    """An entry of an artifact's description; None for a model, and where there is no such entry."""
    path = resolve(target) / NAME
    document: Any = read_json(path, TAMPERED) if path.is_file() else None
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def trained_bytes(examples: Iterable[Example], earlier: Iterable[str] = ()) -> bytes:
    """The content of TRAINED: the beginning of each row's key, sorted, one on a line; with those of rows that the
    weights had learned `earlier`."""
    return "".join(f"{key}\n" for key in sorted({trained_key(example) for example in examples} | {*earlier})).encode()


def trained_key(example: Example) -> str:
    """The beginning of a row's key, as TRAINED holds it."""
    return example.key[:KEY_DIGITS]


def trained_keys(folder: Path) -> frozenset[str]:
    """The keys in an artifact's TRAINED; none where it has no such file."""
    path = folder / TRAINED
    return frozenset(path.read_text("utf-8", "replace").split() if path.is_file() else ())


def count_trained(target: str | Path, examples: Iterable[Example]) -> int | None:
    """How many of the rows have the prompt of a training or validation row of an artifact, or of the one that a
    comparison picked; None for a model."""
    folder = resolve(target)
    if not (folder / TRAINED).is_file():
        return None
    keys = trained_keys(folder)
    return sum(trained_key(example) in keys for example in examples)


def _without_schema(artifact: Artifact, files: Mapping[str, Path | bytes]) -> tuple[Artifact, dict[str, Path | bytes]]:
    """The artifact as riyaz.json holds it, and its files: the schema has a file of its own, with a checksum. The word
    TOOLS is no file."""
    task = artifact.task
    if task is None or task.schema in ("", TOOLS):
        return replace(artifact, text=replace(artifact.text, schema_file=None)), dict(files)
    text, schema = replace(artifact.text, schema_file=SCHEMA), json.dumps(json.loads(task.schema), indent=2) + "\n"
    return replace(artifact, task=replace(task, schema=""), text=text), {**files, SCHEMA: schema.encode()}


def _with_schema(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact with the schema of its file in its task. Raises RiyazError for a file that holds none."""
    if artifact.task is None:
        return artifact
    name, word = artifact.text.schema_file, TOOLS if artifact.task.schema == TOOLS else ""
    return replace(artifact, task=replace(artifact.task, schema=read_schema(folder / name) if name else word))


def _verify(folder: Path, name: str, wanted: str) -> None:
    path = folder / name
    if not is_bare(name):
        raise RiyazError(f"lists {shown(name)}, which is not a bare file name", str(folder / NAME))
    if not path.is_file():
        raise RiyazError("the file is missing", str(path), TAMPERED)
    if file_sha256(path) != wanted:
        raise RiyazError("the checksum does not match the file", str(path), TAMPERED)


def _has_choices(task: Task | None) -> bool:
    """Whether a head could score the answers of a task: labels, or choices of questions."""
    return task is not None and task.kind in ("closed", "questions")


def _check_values(artifact: Artifact, where: str) -> None:
    """Raises RiyazError for an unknown kind, a negative number, a missing base, or a needed file that is not listed."""
    text, kind = artifact.text, artifact.weights.kind
    if text.examples not in EXAMPLE_KINDS:
        raise RiyazError(f"text.examples is {shown(text.examples)}", where, f"known: {', '.join(EXAMPLE_KINDS)}")
    if kind not in WEIGHT_KINDS:
        raise RiyazError(f"weights.kind is {shown(kind)}", where, f"known: {', '.join(WEIGHT_KINDS)}")
    quantised = QUANTISED in artifact.checksums
    question_count = len(artifact.task.questions) if artifact.task else 0
    numbers = range(question_count) if question_count else (None,)
    of_classifiers = {
        "linear": [of_question(name, number) for number in numbers for name in (CLASSIFIER, CLASSIFIER_WEIGHTS)],
        "encoder": [*(of_question(name, number) for number in numbers for name in (ENCODER, ENCODER_WEIGHTS)),
                    "model.safetensors", "config.json"],
    }  # fmt: skip
    needed = {
        "none": [], "copy": [text.examples_file or EXAMPLES], **of_classifiers,
        "full": [QUANTISED] if quantised else ["model.safetensors", "config.json"],
    }.get(kind, ["adapter_config.json", "adapter_model.safetensors"])  # fmt: skip
    if artifact.weights.label_head:
        if kind not in (*ADAPTER_KINDS, "full") or not _has_choices(artifact.task):
            raise RiyazError("weights.label_head is true without trained weights and labels", where, TAMPERED)
        needed = [*needed, LABELS]
    if beside := artifact.weights.beside:
        if beside not in CLASSIFIERS or kind not in ADAPTER_KINDS or not artifact.weights.label_head:
            raise RiyazError(f"weights.beside is {shown(beside)}", where, TAMPERED)
        if not artifact.weights.factor > 0:
            raise RiyazError(f"weights.factor is {artifact.weights.factor}", where, TAMPERED)
        needed = [*needed, *of_classifiers[beside]]
    if text.examples != "none":
        needed = [*needed, text.examples_file or EXAMPLES]
    if text.passages:
        needed = [*needed, text.collection_file or COLLECTION]
    if text.schema_file is not None:
        if artifact.task is None or artifact.task.kind in ("closed", "questions") or text.span_words:
            raise RiyazError("text.schema_file is named where answers are chosen", where, TAMPERED)
        needed = [*needed, text.schema_file]
    for name in ("k", "passages", "span_words"):
        if getattr(text, name) < 0:
            raise RiyazError(f"text.{name} is {getattr(text, name)}", where, TAMPERED)
    if artifact.temperature is not None and not artifact.temperature > 0:
        raise RiyazError(f"temperature is {artifact.temperature}", where, TAMPERED)
    if offsets := artifact.label_offsets:
        labels = artifact.task.labels if artifact.task else ()
        if len(offsets) != len(labels) or not all(map(math.isfinite, offsets)):
            raise RiyazError(f"label_offsets are {shown(str(offsets))}", where, TAMPERED)
    if artifact.task is not None:
        _check_labels(artifact.task, where)
    if artifact.temperatures and (len(artifact.temperatures) != question_count or min(artifact.temperatures) <= 0):
        raise RiyazError(f"temperatures are {shown(str(artifact.temperatures))}", where, TAMPERED)
    absent = [name for name in needed if name not in artifact.checksums]
    if absent:
        raise RiyazError(f"lists no {shown(absent[0])}, which its parts need", where, TAMPERED)
    if artifact.base is None and kind not in MODEL_FREE:
        raise RiyazError("names no base model", where, TAMPERED)


def _check_labels(task: Task, where: str) -> None:
    """Raises RiyazError where an answer cannot be chosen: there is no label, or one is empty or stands twice."""
    if (task.kind == "closed" and not task.labels) or (task.kind == "questions" and not task.questions):
        raise RiyazError(f"a {task.kind} task has nothing to choose from", where, TAMPERED)
    sets: dict[str, Sequence[str | bool]] = {"task.labels": task.labels}
    for number, question in enumerate(task.questions):
        sets[f"task.questions.{number}.choices"] = [choice.value for choice in question.choices]
        if not question.choices:
            raise RiyazError(f"task.questions.{number} has no choices", where, TAMPERED)
    for name, values in sets.items():
        if not all(value.strip() for value in values if isinstance(value, str)):
            raise RiyazError(f"{name} has an empty one", where, TAMPERED)
        if len({(type(value), value) for value in values}) < len(values):
            raise RiyazError(f"{name} has one twice", where, TAMPERED)
