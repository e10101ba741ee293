"""Any model answers any question about a text, without training.

    conversation ─► its tokens, read once ─► a fork for each question ─► log-probability of each choice's text

Choices are not listed in the prompt, so their order plays no part. A choice's score is what the input adds to the
log-probability of its text, without the token that ends an answer: log p(text | input) − log p(text | a text
without content) (contextual calibration, Zhao et al. 2021, arXiv 2102.09690; Holtzman et al. 2021, arXiv 2104.08315),
divided by the square root of its tokens, between a sum, which is too sure of long texts, and a mean. A description is
another text of the choice, and the mean of both scores counts. `docs/log.md` has what was tried.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from weakref import WeakKeyDictionary

import numpy as np

from riyaz.artifact import TextPart
from riyaz.data import Message
from riyaz.data.questions import Choice, Question
from riyaz.engine.engine import Engine
from riyaz.engine.forks import Fork, ForkScores, Stem
from riyaz.engine.parts import Steps
from riyaz.engine.request import Request
from riyaz.metrics.calibration import probabilities
from riyaz.predictor.decided import Decided
from riyaz.predictor.prompt import SHORTEST_PREFIX, PromptedModel, TooLong, expect_short
from riyaz.text.tokenizer import Tokenizer

NULL_TEXTS = ("N/A",)  # inputs without content; the empty text beside it made no difference (docs/log.md)
ASKING = {"predicate": "", "choice": " Answer in a few words.", "score": " Answer in a few words."}  # after a question
YES_NO = {True: "yes", False: "no"}  # the texts of a predicate's choices
PROBES = ("0", "Q")  # questions that begin differently: what their prompts share is the input's
RENDERED = 32  # prompts that are rendered together
KNOWN, WORDED = 4096, 64  # questions whose scores without content are kept, and whose texts in tokens
IDENTIFIER = re.compile(r"\w+(?:[-.]\w+)*")
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Decisions:
    """The answers about an input. `input_tokens` is how many tokens prompts have, the input's once and each question's;
    `cached_tokens` of these had been read for earlier requests."""

    answers: list[Decided]
    input_tokens: int
    cached_tokens: int


def deciding(
    model: PromptedModel, conversation: Sequence[Message], questions: Sequence[Question]
) -> Steps[list[Decided]]:
    """The answers to the questions about a conversation, in parts. Raises RiyazError where it does not fit the
    context."""
    (decisions,) = yield from deciding_counted(model, [conversation], questions)
    return decisions.answers


def deciding_counted(
    model: PromptedModel, conversations: Sequence[Sequence[Message]], questions: Sequence[Question],
    where: Sequence[str] = (), owner: int = 0,
) -> Steps[list[Decisions]]:  # fmt: skip
    """The answers to the questions about each conversation, all read together, in parts. An answer is bit by bit the
    same whatever else is asked. What is kept is used for the same `owner` alone, as with a Request. Raises RiyazError,
    with the conversation's entry of `where`, for one that does not fit the context."""
    bare = replace(model, text=TextPart(), task=None, examples=(), retriever=None, head=None, beside=None)
    known = _known.setdefault(bare.lm, _Known())
    wordings = [known.wording(question, bare, owner) for question in questions]
    unknown = {each.key: each for each in wordings if bare.adapter or each.key not in known.offsets}
    stems = []
    for row, conversation in enumerate(conversations):
        stems.append((yield from _stem(bare, conversation, wordings, where[row] if row < len(where) else "", owner)))
    for null in NULL_TEXTS if unknown else ():
        stems.append((yield from _stem(bare, [{"role": "user", "content": null}], list(unknown.values()), owner=owner)))
    results = yield from bare.lm.forking(stems)
    rows, nulls = results[: len(conversations)], results[len(conversations) :]
    offsets = {key: np.mean([null.scores[i] for null in nulls], axis=0) for i, key in enumerate(unknown)}
    offsets |= {each.key: known.offsets[each.key] for each in wordings if each.key not in unknown}
    if not bare.adapter:  # another adapter may get the same name
        known.keep(offsets)
    return [_decisions(wordings, offsets, stem, row) for stem, row in zip(stems, rows)]


class _Known:
    """What is known of an engine's model: the `beginning` of all prompts in tokens, and the log-probabilities (E,) of
    the endings of the latest questions without content, and the texts of a few in tokens."""

    def __init__(self) -> None:
        self.beginning: tuple[int, ...] | None = None
        self.offsets: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._wordings: OrderedDict[tuple[int, Question], _Wording] = OrderedDict()

    def wording(self, question: Question, model: PromptedModel, owner: int) -> "_Wording":
        """A question with its texts in tokens, made once for its owner while it is among the last ones."""
        name = owner, question
        if name not in self._wordings:
            self._wordings[name] = _Wording(question, model, owner)
            if len(self._wordings) > WORDED:
                self._wordings.popitem(last=False)
        self._wordings.move_to_end(name)
        return self._wordings[name]

    def keep(self, offsets: dict[bytes, np.ndarray]) -> None:
        """Keep those that were used last."""
        for key, each in offsets.items():
            self.offsets[key] = each
            self.offsets.move_to_end(key)
        while len(self.offsets) > KNOWN:
            self.offsets.popitem(last=False)

    def beginning_of(self, tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
        """The beginning of all prompts, if a prompt's `tokens` begin with it and it is worth keeping, else none."""
        if self.beginning is None:
            first, second = tokenizer.render([[{"role": "user", "content": probe}] for probe in PROBES])
            self.beginning = tuple(first[: _common(first, second)])
        count = len(self.beginning)
        worth = SHORTEST_PREFIX <= count < len(tokens) and tuple(tokens[:count]) == self.beginning
        return self.beginning if worth else ()


_known: "WeakKeyDictionary[Engine, _Known]" = WeakKeyDictionary()  # only an engine's own thread uses its entry


class _Wording:
    """A question with the texts of its choices in tokens, each once: `endings`."""

    def __init__(self, question: Question, model: PromptedModel, owner: int) -> None:
        self.question, self._owner = question, owner
        self.prompt = question.instructions + ASKING[question.type]
        values = list(_texts(question))
        described = [place for place, choice in enumerate(question.choices) if choice.description.strip()]
        texts = [*values, *(question.choices[place].description.strip() for place in described)]
        # all but the token that ends an answer: how an answer goes on would count as much as what it says
        ids = [tuple(answer[:-1] or answer) for answer in model.tokenizer.answer_ids(texts)]
        self.endings = tuple(sorted(set(ids)))
        place_of = {ending: place for place, ending in enumerate(self.endings)}
        self._values = [place_of[ending] for ending in ids[: len(values)]]
        self._descriptions = {place: place_of[ending] for place, ending in zip(described, ids[len(values) :])}

    @cached_property
    def key(self) -> bytes:
        """What its scores without content depend on, and whose they are."""
        return hashlib.sha256(repr((self._owner, self.prompt, self.endings)).encode("utf-8", "surrogatepass")).digest()

    @property
    def longest(self) -> int:
        """Tokens of the longest ending."""
        return max(map(len, self.endings))

    def scores(self, log_p: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The score (L,) of each choice from the log-probabilities (E,) of the endings, with and without content."""
        each = (log_p - offsets) / np.sqrt([len(ending) for ending in self.endings])
        scores: np.ndarray = each[self._values].copy()
        for place, ending in self._descriptions.items():
            scores[place] = (scores[place] + each[ending]) / 2
        return scores


def _decisions(
    wordings: Sequence[_Wording], offsets: dict[bytes, np.ndarray], stem: Stem, row: ForkScores
) -> Decisions:
    answers = []
    for each, log_p in zip(wordings, row.scores):
        scores = each.scores(log_p, offsets[each.key])
        order = np.argsort(scores, kind="stable")  # a sum of the same numbers in another order may round otherwise
        p = np.empty(len(scores), np.float32)
        p[order] = probabilities(scores[order][None], 1.0)[0]
        answers.append(Decided(each.question, p))
    read = stem.request.length + sum(len(fork.tokens) for fork in stem.forks)
    return Decisions(answers, read, row.cached)


def _texts(question: Question) -> Iterator[str]:
    """What the model is to answer for each choice: the value as it would be said, unless another choice is then
    alike."""
    if question.type == "predicate":
        yield from (YES_NO[bool(choice.value)] for choice in question.choices)
        return
    said = [_said(choice) for choice in question.choices]
    meant: dict[str, set[str]] = {}
    for text, choice in zip(said, question.choices):
        meant.setdefault(text, set()).add(choice.text)
    for text, choice in zip(said, question.choices):
        yield text if len(meant[text]) == 1 else choice.text.strip()


def _said(choice: Choice) -> str:
    """A value as it would be said: the words of an identifier, such as `lost_card` or `PlayMusic`."""
    text = choice.text.strip()
    if not IDENTIFIER.fullmatch(text):
        return text
    words = HUMP.sub(" ", re.sub("[_.-]+", " ", text)).split()
    return " ".join(word if word.isupper() else word.lower() for word in words) if len(words) > 1 else text


def _stem(
    model: PromptedModel, conversation: Sequence[Message], wordings: Sequence[_Wording], where: str = "", owner: int = 0
) -> Steps[Stem]:
    """The tokens of a conversation, and behind them those of each question. Raises TooLong."""
    expect_short(conversation[-1]["content"], where)
    forks: list[Fork] = []
    tokens: tuple[int, ...] = ()
    for begin in range(0, len(wordings), RENDERED):
        chunk = wordings[begin : begin + RENDERED]
        probes = () if tokens else PROBES
        texts = [*probes, *(each.prompt for each in chunk)]
        prompts = model.tokenizer.render([_with(conversation, text) for text in texts])
        if probes:
            first, second = prompts[:2]
            tokens = tuple(first[: max(1, _common(first, second))])
        for each, prompt in zip(chunk, prompts[len(probes) :]):
            if len(prompt) + each.longest > model.context:
                raise TooLong(len(prompt), each.longest, model.context, where)
            shared = min(_common(tokens, prompt), len(prompt) - 1)
            forks.append(Fork(shared, tuple(prompt[shared:]), each.endings))
        if begin + RENDERED < len(wordings):
            yield
    before = _known[model.lm].beginning_of(tokens, model.tokenizer)
    request = Request(0, tokens[len(before) :], prefix=before, adapter=model.adapter, owner=owner)
    return Stem(request, tuple(forks))


def _with(conversation: Sequence[Message], question: str) -> list[Message]:
    """A conversation that ends with a question: in the user's last turn, or a turn of its own."""
    *turns, last = conversation
    if last["role"] != "user":
        return [*conversation, {"role": "user", "content": question}]
    return [*turns, {**last, "content": f"{last['content']}\n\n{question}"}]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens with which both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
