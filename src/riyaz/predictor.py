"""A model and its parts, ready to answer: `open_target("smollm2-135m")` or the folder of an artifact.

    predictor = open_target("out/lora")
    predictor.answer([{"role": "user", "content": "Where is my card?"}])

A Predictor is put together from a text part and a weights part and never asks which method made them. Its one
verb is `prepare`, messages to a Request; `lm` gives the log-probabilities (None where answers are copied).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, TextPart
from riyaz.data import Example, Message
from riyaz.data.task import Task
from riyaz.engine import Request, counted
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.prompting import messages_for
from riyaz.retrieval.spans import spans
from riyaz.sentences import ended
from riyaz.sources import Source, open_source
from riyaz.tokenizer import Tokenizer

if TYPE_CHECKING:
    from riyaz.engine.torch_backend import Backend
    from riyaz.retrieval.lexical import BM25
    from riyaz.retrieval.search import Hit, Retriever

ADAPTER_CONFIG = "adapter_config.json"  # in a PEFT folder
SHORTEST_PREFIX = 16  # tokens; a shorter shared beginning costs more to attend to apart than to read again
NULL_TEXTS = ("N/A", "")  # texts without content, the average over both (Zhao et al. 2021, arXiv 2102.09690)
NULL_CONTEXTS = 2  # sets of nearest examples over which the null prompt is averaged
CHAT_TOKENS = 256


@dataclass(frozen=True)
class Prediction:
    """An answer. Of a closed set also its log-probability in nats, end token included, and on request that of every
    label (L,), before calibration. `citations` says which documents it was given to read."""

    text: str
    log_probability: float | None = None
    label_log_probabilities: np.ndarray | None = None
    citations: tuple[dict, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictor:
    """Text part, weights part and what they need; `dataclasses.replace` gives a variant.

    Without `lm` and `tokenizer` it copies the answer of the nearest of `examples`. `adapter` is the name
    under which `lm` holds the weights part, None for the bare model; `bare` makes the base's Backend where
    the weights part is a whole model.
    """

    text: TextPart = field(default_factory=TextPart)
    task: Task | None = None
    tokenizer: Tokenizer | None = None
    lm: "Backend | None" = None
    adapter: str | None = None
    examples: tuple[Example, ...] = ()
    retriever: "Retriever | None" = None
    calibrated: bool = False
    max_new_tokens: int = CHAT_TOKENS
    bare: "Callable[[], Backend] | None" = None
    note: str = ""  # what could not be checked of an adapter's base, in one line

    def prepare(self, messages: Sequence[Message], where: str = "") -> Request:
        """The request of one conversation; RiyazError naming `where` when it is longer than the context."""
        return self.prepare_all([messages], [where])[0]

    def prepare_all(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), room: int | None = None
    ) -> list[Request]:
        """Requests rendered in one batch, `room` tokens left for the answer (default: what it may need)."""
        from riyaz.retrieval.search import citation

        assert self.tokenizer is not None
        passages = [list(hits) for hits in self.passages(conversations)]
        shown = [list(self._shown(messages)) for messages in conversations]
        around = partial(messages_for, self.text, self.task)
        prompts = self.tokenizer.render([around(*parts) for parts in zip(conversations, shown, passages)])
        most = self._most(room)
        for row, messages in enumerate(conversations):
            while len(prompts[row]) > most and (passages[row] or shown[row]):  # the least near ones go first
                passages[row].pop() if passages[row] else shown[row].pop(0)
                prompts[row] = self.tokenizer.render([around(messages, shown[row], passages[row])])[0]
        requests = self._requests(prompts, where, most)
        return [
            replace(request, citations=tuple(map(citation, hits))) if hits else request
            for request, hits in zip(requests, passages)
        ]

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation the model reads, before the chat template."""
        return self.conversations([messages])[0]

    def conversations(self, conversations: Sequence[Sequence[Message]]) -> list[list[Message]]:
        """What `messages` makes of each, with one search for all of them."""
        return [
            messages_for(self.text, self.task, messages, self._shown(messages), hits)
            for messages, hits in zip(conversations, self.passages(conversations))
        ]

    def passages(self, conversations: Sequence[Sequence[Message]]) -> "list[list[Hit]]":
        """The retrieved passages that stand before each conversation's question, best first."""
        if self.retriever is None or not self.text.passages:
            return [[] for _ in conversations]
        return self.retriever.search([messages[-1]["content"] for messages in conversations], self.text.passages)

    def answer(self, messages: Sequence[Message], max_tokens: int | None = None) -> str:
        """The answer to one conversation, of at most `max_tokens` tokens unless its set is closed."""
        return self.answers([messages], max_tokens=max_tokens)[0].text

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        where: Sequence[str] = (),
        *,
        every_label: bool = False,
        max_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Answers in the order of the conversations; `progress` is told (done, total)."""
        tell = counted(progress, len(conversations))
        if self.lm is None:
            found = []
            for messages in conversations:
                found.append(Prediction(self.copy(messages)))
                tell(1)
            return found
        if not conversations:
            return []
        if self.text.span_words and self.text.passages:
            return self.extracted(conversations, where, tell=tell)[0]
        requests = self.prepare_all(conversations, where, max_tokens)
        if self.constraint is None:
            tokens = self.lm.generate(requests, max_tokens or self.max_new_tokens, tell)
            return [Prediction(self.said(ids), citations=r.citations) for ids, r in zip(tokens, requests)]
        assert self.task is not None
        if every_label:
            scores = self.lm.choose(requests, tell)
            best = [(int(i), float(row[i])) for i, row in zip((scores + self.offsets).argmax(1), scores)]
            return [
                Prediction(self.task.labels[i], p, row, request.citations)
                for (i, p), row, request in zip(best, scores, requests)
            ]
        best = self.lm.best(requests, self.offsets, tell)
        return [Prediction(self.task.labels[i], p, None, request.citations) for (i, p), request in zip(best, requests)]

    def raw_and_calibrated(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Prediction], list[Prediction]]:  # fmt: skip
        """The answers of a closed set without and with calibration, from one pass."""
        assert self.lm is not None and self.task is not None and self.constraint is not None
        requests = self.prepare_all(conversations, where)
        offsets = np.stack((np.zeros(len(self.task.labels)), self.null_offsets))
        found = self.lm.best_each(requests, offsets, counted(progress, len(conversations)))
        raw, calibrated = ([Prediction(self.task.labels[i], p) for i, p in best] for best in found)
        return raw, calibrated

    def extracted(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (),
        offsets: Sequence[float] | None = None, tell: Callable[[int], None] | None = None,
    ) -> list[list[Prediction]]:  # fmt: skip
        """For each of `offsets` in place of `common_offset` the answers: of every conversation the likeliest among
        those that stand in its passages and the common ones, by exact search; all from one pass."""
        assert self.lm is not None and self.tokenizer is not None
        found: list[list[Prediction]] = [[] for _ in offsets or (0.0,)]
        requests = self.prepare_all(conversations, where)
        for request, hits in zip(requests, self.passages(conversations)):
            read = hits[: len(request.citations)]  # those that fitted
            texts = dict.fromkeys(span for hit in read for span in spans(hit.text, self.text.span_words))
            if not texts and not self.text.common:  # nothing was found: answered freely
                said = self.said(self.lm.generate([request], self.max_new_tokens, tell)[0])
                for answers in found:
                    answers.append(Prediction(said, citations=request.citations))
                continue
            ids = [tuple(answer) for answer in self.tokenizer.answer_ids([*self.text.common, *texts])]
            trie = Trie(list(dict.fromkeys(ids)))
            usual = np.isin(np.arange(len(trie.leaf)), np.arange(len(set(ids[: len(self.text.common)]))))
            added = np.outer(offsets or [self.text.common_offset], usual)
            for row, answers in zip(self.lm.best_each([replace(request, constraint=trie)], added, tell), found):
                best, p = row[0]
                text = self.tokenizer.decode(trie.sequences[best][:-1]).strip()
                answers.append(Prediction(text, p, citations=request.citations))
        return found

    def copy(self, messages: Sequence[Message]) -> str:
        """The answer of the nearest example."""
        return self._nearest(messages, 1)[0].answer

    def said(self, tokens: Sequence[int]) -> str:
        """Tokens as text; a task's answer that filled its room ends with its last whole sentence."""
        assert self.tokenizer is not None
        text = self.tokenizer.decode(tokens).strip()
        full = self.task is not None and len(tokens) >= self.max_new_tokens
        return (full and ended(text + " ")) or text

    def base(self) -> "Predictor":
        """The same prompt on the base: the adapter truly off, or the model that a whole model came from."""
        if self.bare is not None:
            return replace(self, lm=self.bare(), adapter=None, bare=None)
        return replace(self, adapter=None)

    @cached_property
    def constraint(self) -> Trie | None:
        """The labels of a closed set as they stand where the assistant's turn begins, each with its end."""
        if self.task is None or self.task.kind != "closed" or self.tokenizer is None:
            return None
        ids = [tuple(answer) for answer in self.tokenizer.answer_ids(list(self.task.labels))]
        known = dict(zip(ids, self.task.labels))
        for answer, label in zip(ids, self.task.labels):
            if known[answer] is not label:
                raise RiyazError(f"the labels {label!r} and {known[answer]!r} are the same to the tokenizer")
        return Trie(ids)

    @cached_property
    def offsets(self) -> np.ndarray:
        """What is added to each label's log-probability (L,): 0, or if calibrated minus the null prompt's."""
        assert self.task is not None
        return self.null_offsets if self.calibrated else np.zeros(len(self.task.labels))

    @cached_property
    def null_offsets(self) -> np.ndarray:
        """−log of each label's mean probability after this prompt with a text without content (L,)."""
        assert self.lm is not None
        conversations = [
            messages_for(self.text, self.task, [turn], shown, self.passages([[turn]])[0])
            for turn in ({"role": "user", "content": null} for null in NULL_TEXTS)
            for shown in self._null_contexts()
        ]
        assert self.tokenizer is not None
        prompts = self.tokenizer.render(conversations)
        scores = self.lm.choose(self._requests(prompts, ["the null prompt"] * len(prompts), self._most(None)))
        return np.log(len(scores)) - np.logaddexp.reduce(scores, axis=0)

    def _most(self, room: int | None) -> int:
        """The longest prompt that leaves `room` tokens for the answer (default: what it may need)."""
        assert self.lm is not None, "a copying predictor has no requests"
        if self.constraint is not None:
            room = int(self.constraint.depth.max())
        return self.lm.context - self.lm.adapter_tokens(self.adapter) - (room or self.max_new_tokens)

    def _requests(self, prompts: list[list[int]], where: Sequence[str], most: int) -> list[Request]:
        assert self.lm is not None
        requests = []
        for row, ids in enumerate(prompts):
            if len(ids) > most:
                context = self.lm.context - self.lm.adapter_tokens(self.adapter)
                what = f"the prompt has {len(ids)} tokens; with {context - most} for the answer it does not fit"
                hint = "shorten it, show fewer examples or take a model with a longer context"
                at = where[row] if row < len(where) else ""
                raise RiyazError(f"{what} the context of {context}", at, hint)
            shared = len(self._prefix) if tuple(ids[: len(self._prefix)]) == self._prefix else 0
            requests.append(Request(tuple(ids[shared:]), self.adapter, tuple(ids[:shared]), self.constraint))
        return requests

    @cached_property
    def _prefix(self) -> tuple[int, ...]:
        """The tokens every prompt begins with: what two prompts without anything in common share."""
        assert self.tokenizer is not None
        shown = self.examples if self.text.examples == "fixed" else ()
        probes = [
            messages_for(self.text, self.task, [{"role": "user", "content": probe}], shown) for probe in ("0", "Q")
        ]
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(*self.tokenizer.render(probes)))
        prefix = tuple(pair[0] for pair in pairs)
        return prefix if len(prefix) >= SHORTEST_PREFIX else ()

    def _shown(self, messages: Sequence[Message]) -> Sequence[Example]:
        """The examples in front of this question: none, all, or the k nearest with the nearest last."""
        if self.text.examples == "nearest":
            return self._nearest(messages, self.text.k)[::-1]
        return self.examples if self.text.examples == "fixed" else ()

    def _null_contexts(self) -> list[Sequence[Example]]:
        """Examples to show before a null text. Nothing is near to it, so those of a few real questions."""
        if self.text.examples != "nearest":
            return [self._shown([])]
        step = max(1, len(self.examples) // NULL_CONTEXTS)
        questions = [example.messages for example in self.examples[::step][:NULL_CONTEXTS]]
        return [self._shown(question) for question in questions]

    def _nearest(self, messages: Sequence[Message], k: int) -> list[Example]:
        return [self.examples[i] for i in self._index.top(messages[-1]["content"], k)]

    @cached_property
    def _index(self) -> "BM25":
        from riyaz.retrieval.lexical import BM25

        return BM25([example.prompt for example in self.examples])


def open_target(name_or_path: str | Path, base: str | None = None) -> Predictor:
    """The predictor of an artifact's folder, or of a plain model given by name or path."""
    path = artifacts.resolve(name_or_path)
    if (path / artifacts.NAME).is_file():
        return open_artifact(path, base)
    if (path / ADAPTER_CONFIG).is_file():
        return open_adapter(path, base)
    return open_model(name_or_path)


def open_model(name_or_path: str | Path) -> Predictor:
    """A plain model that answers as it stands, without an instruction."""
    from riyaz.engine.torch_load import load

    source = open_source(name_or_path)
    tokenizer = source.tokenizer()
    lm = load(source, tokenizer.eos_ids)
    return Predictor(tokenizer=tokenizer, lm=lm, max_new_tokens=_talk(lm))


def open_adapter(folder: Path, base: str | None = None) -> Predictor:
    """A plain PEFT folder on its base, which `base` or its configuration names, without an instruction."""
    from riyaz.adapters import base_for
    from riyaz.engine.torch_load import ADAPTER, load

    source, note = base_for(folder / ADAPTER_CONFIG, base)
    tokenizer = source.tokenizer()
    lm = load(source, tokenizer.eos_ids, folder)
    return Predictor(tokenizer=tokenizer, lm=lm, adapter=ADAPTER, note=note, max_new_tokens=_talk(lm))


def _talk(lm: "Backend") -> int:
    """The room of an answer when nobody says: a short context keeps half of it for what is asked."""
    return min(CHAT_TOKENS, max(1, lm.context // 2))


def open_artifact(folder: str | Path, base: str | None = None, *, merged: bool = False) -> Predictor:
    """The predictor of an artifact; `base` says where its base model is now. RiyazError when a file was
    changed or the base is another model."""
    folder = artifacts.resolve(folder)
    artifact = Artifact.read(folder)
    kind = artifact.weights.kind
    examples: tuple[Example, ...] = ()
    if kind == "copy" or artifact.text.examples != "none":
        examples = artifacts.read_examples(folder / (artifact.text.examples_file or artifacts.EXAMPLES))
    plain = Predictor(
        text=artifact.text, task=artifact.task, examples=examples, retriever=_retriever(folder, artifact.text),
        calibrated=artifact.calibrated, max_new_tokens=artifact.max_new_tokens,
    )  # fmt: skip
    if kind == "copy":
        return plain
    from riyaz.engine.torch_load import ADAPTER, load

    def bare() -> "Backend":
        source = _base_source(artifact, folder, base)
        return load(source, source.tokenizer().eos_ids)

    whole = kind == "full"
    source = open_source(folder) if whole else _base_source(artifact, folder, base)
    tokenizer = source.tokenizer()
    _check_template(artifact, tokenizer, folder)
    adapted = kind in artifacts.ADAPTER_KINDS
    lm = load(source, tokenizer.eos_ids, folder if adapted else None, merged=merged)
    adapter = ADAPTER if adapted and not merged else None
    return replace(plain, tokenizer=tokenizer, lm=lm, adapter=adapter, bare=bare if whole else None)


def _retriever(folder: Path, text: TextPart) -> "Retriever | None":
    """Search over the artifact's own documents."""
    if not text.passages:
        return None
    from riyaz.retrieval.open_retriever import open_retriever

    return open_retriever(folder / (text.collection_file or artifacts.COLLECTION))


def _base_source(artifact: Artifact, folder: Path, base: str | None) -> Source:
    """The base model, which must be the one the artifact was made for."""
    assert artifact.base is not None
    source = open_source(base or artifact.source_name())
    if source.sha256() != artifact.base.sha256:
        what = f"was made for {artifact.base.name} ({artifact.base.sha256[:12]}), not for {source.name}"
        hint = "give the model it was made for"
        raise RiyazError(f"{what} ({source.sha256()[:12]})", str(folder), hint)
    return source


def _check_template(artifact: Artifact, tokenizer: Tokenizer, folder: Path) -> None:
    """Other words around the same turns are other prompts: the weights would fit and the answers be worse."""
    assert artifact.base is not None
    made = artifact.base.template
    if made is not None and made.splitlines() != tokenizer.template.splitlines():  # a file may change line ends
        hint = "restore the one it had, or make the artifact again"
        raise RiyazError(f"{artifact.base.name} has another chat template now", str(folder), hint)
