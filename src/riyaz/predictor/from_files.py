"""Opens a predictor: a model by name or path, an adapter folder on its base, or an artifact."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz.adapters import Adapter, base_for
from riyaz.artifact import MODEL_FREE, Artifact, TextPart
from riyaz.classifiers import Classifier, open_classifier, open_classifiers
from riyaz.config import Kv, Lookup, Precision
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.engine import Engine
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.predictor.beside import Beside
from riyaz.predictor.classifier import ClassifierPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.decisions import DecisionClassifier
from riyaz.predictor.example_index import read_index
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.kinds import ModelPredictor, Predictor, predictor_for
from riyaz.predictor.label_head import LabelHead
from riyaz.predictor.nearest_choices import nearest_choices
from riyaz.predictor.prompt import PromptedModel
from riyaz.sources import Source, open_source
from riyaz.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from riyaz.retrieval.search import Retriever

ADAPTER = "adapter"  # the name under which requests ask for it


def open_target(
    name_or_path: str | Path, base: str | None = None, precision: Precision = "auto", kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> Predictor:  # fmt: skip
    """The predictor of an artifact's folder, of an adapter folder, or of a plain model given by name or path.

    `base` is the name or path of the base model of an adapter or artifact, where it has moved. `precision` is how
    weights are served: "fp32", "bf16", "int8", "int4", or "auto": as the file stores them, float32 as bf16; `kv` how
    keys and values are held and `lookup` whether answers are looked up, as in `open_engine`. Raises RiyazError.
    """
    path = artifacts.resolve(name_or_path)
    if (path / artifacts.NAME).is_file():
        return open_artifact(path, base, precision, kv=kv, lookup=lookup)
    if (path / adapters.CONFIG).is_file():
        return open_adapter(path, base, precision, kv, lookup)
    return open_model(name_or_path, precision, kv, lookup)


def open_model(
    name_or_path: str | Path, precision: Precision = "auto", kv: Kv = "auto", lookup: Lookup | None = None
) -> FreePredictor:
    """The predictor of a plain model, without an instruction."""
    tokenizer, lm = _opened(open_source(name_or_path), precision, kv=kv, lookup=lookup)
    return FreePredictor(tokenizer=tokenizer, lm=lm, max_new_tokens=_chat_tokens(lm))


def open_adapter(
    folder: Path, base: str | None = None, precision: Precision = "auto", kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> FreePredictor:  # fmt: skip
    """The predictor of an adapter folder without an instruction; `base`, or its configuration, names the base model."""
    source, note = base_for(folder / adapters.CONFIG, base)
    tokenizer, lm = _opened(source, precision, folder, kv=kv, lookup=lookup)
    return FreePredictor(tokenizer=tokenizer, lm=lm, adapter=ADAPTER, note=note, max_new_tokens=_chat_tokens(lm))


def _chat_tokens(lm: Engine) -> int:
    """Default answer length: 256 tokens, at most half the context."""
    return min(CHAT_TOKENS, max(1, lm.context // 2))


def open_artifact(
    folder: str | Path, base: str | None = None, precision: Precision = "auto", *, merged: bool = False,
    kv: Kv = "auto", lookup: Lookup | None = None,
) -> Predictor:  # fmt: skip
    """The predictor of an artifact. `base` is the name or path of its base model, where it has moved; `merged` adds a
    LoRA to the base's weights. Raises RiyazError when a file was changed or the base is another model."""
    folder = artifacts.resolve(folder)
    artifact = Artifact.read(folder)
    kind = artifact.weights.kind
    if kind in MODEL_FREE:
        return _without_model(artifact, folder)
    whole = kind == "full"
    source = open_source(folder) if whole else _base_source(artifact, folder, base)
    adapted = kind in artifacts.ADAPTER_KINDS
    return _assembled(
        artifact, folder, *_opened(source, precision, folder if adapted else None, merged, kv, lookup),
        adapter=ADAPTER if adapted and not merged else None,
        bare=(lambda: _engine(_base_source(artifact, folder, base), precision, kv=kv, lookup=lookup))
        if whole else None,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Base:
    """A model that was opened once, and answers with any number of adapters and artifacts."""

    source: Source
    tokenizer: Tokenizer
    lm: Engine

    @cached_property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return describe(self.source).parameters

    @property
    def plain(self) -> FreePredictor:
        """The predictor of the model itself."""
        return FreePredictor(tokenizer=self.tokenizer, lm=self.lm, max_new_tokens=_chat_tokens(self.lm))


def open_base(
    model: str | Path | Source, precision: Precision = "auto", kv: Kv = "auto", lookup: Lookup | None = None
) -> Base:
    """A model by name, path or source. Raises RiyazError."""
    source = model if isinstance(model, Source) else open_source(model)
    return Base(source, *_opened(source, precision, kv=kv, lookup=lookup))


def source_for(folder: str | Path, opened: Sequence[Source] = (), base: str | None = None) -> Source | None:
    """The model that an artifact or an adapter folder needs: its own where it holds a whole one, else its base, one of
    `opened` if that fits; None where no language model answers. Raises RiyazError."""
    folder = artifacts.resolve(folder)
    if not (folder / artifacts.NAME).is_file():
        return base_for(folder / adapters.CONFIG, str(opened[0].path) if opened else base)[0]
    artifact = Artifact.read(folder)
    if artifact.weights.kind in MODEL_FREE or artifact.base is None:
        return None
    if artifact.weights.kind == "full":
        return open_source(folder)
    fits = (source for source in opened if source.sha256() == artifact.base.sha256)
    return next(fits, None) or _base_source(artifact, folder, base)


def open_on(base: Base | None, folder: str | Path, name: str) -> tuple[Predictor, Adapter | None]:
    """The predictor of an artifact or an adapter folder on the open model that it needs, as `source_for` says, and the
    adapter that the model's engine must load under `name` before it answers. Raises RiyazError."""
    folder = artifacts.resolve(folder)
    if not (folder / artifacts.NAME).is_file():
        assert base is not None
        return replace(base.plain, adapter=name), adapters.read(folder, describe(base.source))
    artifact = Artifact.read(folder)
    if base is None or artifact.weights.kind in MODEL_FREE:
        return _without_model(artifact, folder), None
    if artifact.weights.kind != "full":
        _expect_base(artifact, base.source, folder)
    adapted, whole = artifact.weights.kind in artifacts.ADAPTER_KINDS, artifact.weights.kind == "full"
    predictor = _assembled(
        artifact, folder, base.tokenizer, base.lm, adapter=name if adapted else None,
        bare=(lambda: _engine(_base_source(artifact, folder, None), "auto")) if whole else None,
    )  # fmt: skip
    return predictor, adapters.read(folder, describe(base.source)) if adapted else None


def _without_model(artifact: Artifact, folder: Path) -> CopyPredictor | ClassifierPredictor | DecisionClassifier:
    """The predictor of an artifact that needs no language model. Raises RiyazError for a classifier without labels."""
    if artifact.task is not None and artifact.task.questions:
        classifiers = _question_classifiers(artifact, artifact.task, folder)
        return DecisionClassifier(classifiers=classifiers, task=artifact.task, text=artifact.text)
    if artifact.weights.kind == "copy":
        examples = _examples(artifact, folder)
        document, index = read_index(folder, examples)
        return CopyPredictor(
            examples=examples, task=artifact.task, text=artifact.text, temperature=artifact.temperature,
            index=index, per_label=document.per_label,
        )  # fmt: skip
    if artifact.task is None or len(artifact.task.labels) < 2:
        raise RiyazError("names fewer than two labels", str(folder / artifacts.NAME), artifacts.TAMPERED)
    classifier = open_classifier(artifact.weights.kind, folder, artifact.task.labels)
    return ClassifierPredictor(classifier=classifier, task=artifact.task, text=artifact.text)


def _question_classifiers(artifact: Artifact, task: Task, folder: Path) -> tuple[Classifier, ...]:
    """One classifier for each question of the task."""
    if artifact.weights.kind != "copy":
        return open_classifiers(artifact.weights.kind, folder, [question.keys for question in task.questions])
    examples = _examples(artifact, folder)
    document, index = read_index(folder, examples)
    return nearest_choices(task, examples, index, document.per_label, artifact.temperatures)


def _examples(artifact: Artifact, folder: Path) -> tuple[Example, ...]:
    return artifacts.read_examples(folder / (artifact.text.examples_file or artifacts.EXAMPLES))


def _assembled(
    artifact: Artifact, folder: Path, tokenizer: Tokenizer, lm: Engine, *, adapter: str | None,
    bare: Callable[[], Engine] | None = None,
) -> ModelPredictor:  # fmt: skip
    """The predictor of an artifact's text part on an engine that has, or gets, its weights part."""
    _check_template(artifact, tokenizer, folder)
    model = PromptedModel(
        text=artifact.text, task=artifact.task, retriever=_retriever(folder, artifact.text), tokenizer=tokenizer,
        examples=() if artifact.text.examples == "none" else _examples(artifact, folder),
        lm=lm, adapter=adapter, bare=bare, head=_label_head(artifact, folder, lm), beside=_beside(artifact, folder),
    )  # fmt: skip
    return predictor_for(
        model, max_new_tokens=artifact.max_new_tokens, calibrated=artifact.calibrated,
        label_offsets=artifact.label_offsets, temperature=artifact.temperature, temperatures=artifact.temperatures,
    )  # fmt: skip


def _label_head(artifact: Artifact, folder: Path, lm: Engine) -> LabelHead | None:
    """The head of labels of an artifact's weights part, if it has one."""
    if not artifact.weights.label_head:
        return None
    assert artifact.task is not None
    return LabelHead.read(folder / artifacts.LABELS, artifact.task.choices, lm.runner.width)


def _beside(artifact: Artifact, folder: Path) -> Beside | None:
    """The classifier that answers together with the head of labels, if the artifact has one."""
    weights = artifact.weights
    if not weights.beside:
        return None
    assert artifact.task is not None
    return Beside(open_classifier(weights.beside, folder, artifact.task.labels), weights.factor)


def _opened(
    source: Source, precision: Precision, adapter: Path | None = None, merged: bool = False, kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> tuple[Tokenizer, Engine]:  # fmt: skip
    """A model's tokenizer and, as `_engine`, its engine, both at once: packing weights leaves Python to others."""
    with ThreadPoolExecutor(1) as pool:
        tokenizer = pool.submit(source.tokenizer)
        lm = _engine(source, precision, adapter, merged, kv, lookup)
    return tokenizer.result(), lm


def _engine(
    source: Source, precision: Precision, adapter: Path | None = None, merged: bool = False, kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> Engine:  # fmt: skip
    """The engine of a model with the adapter of a folder loaded under the name ADAPTER, or merged into the weights."""
    loaded = None if adapter is None else adapters.read(adapter, describe(source))
    engine = open_engine(source, precision, loaded if merged else None, kv, lookup)
    if loaded is not None and not merged:
        engine.load(ADAPTER, loaded)
    return engine


def _retriever(folder: Path, text: TextPart) -> "Retriever | None":
    """The retriever over the artifact's documents; None for a text part without passages."""
    if not text.passages:
        return None
    from riyaz.retrieval.open_retriever import open_retriever

    return open_retriever(folder / (text.collection_file or artifacts.COLLECTION))


def _base_source(artifact: Artifact, folder: Path, base: str | None) -> Source:
    """The artifact's base model. Raises RiyazError when its weights are not those the artifact was made for."""
    assert artifact.base is not None
    beside = folder / artifacts.BASE_FILE
    named = str(beside) if beside.is_file() else artifact.source_name()
    source = open_source(base or named)
    _expect_base(artifact, source, folder)
    return source


def _expect_base(artifact: Artifact, source: Source, folder: Path) -> None:
    """Raises RiyazError when the weights are not those that the artifact was made for."""
    assert artifact.base is not None
    if source.sha256() != artifact.base.sha256:
        what = f"was made for {artifact.base.name} ({artifact.base.sha256[:12]}), not for {source.name}"
        hint = "give the model it was made for"
        raise RiyazError(f"{what} ({source.sha256()[:12]})", str(folder), hint)


def _check_template(artifact: Artifact, tokenizer: Tokenizer, folder: Path) -> None:
    """Raises RiyazError when the base's chat template has changed: prompts would differ and answers be worse."""
    assert artifact.base is not None
    made = artifact.base.template
    if made is not None and made.splitlines() != tokenizer.template.splitlines():  # a file may change line ends
        hint = "restore the one it had, or make the artifact again"
        raise RiyazError(f"{artifact.base.name} has another chat template now", str(folder), hint)
