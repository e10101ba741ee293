"""From messages to a prompt: the text around a question, and the engine's request.

`prepare` searches the documents, renders each conversation and cuts it to the context, once; the result is a
`Prepared`, which holds the request and the passages in it.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np

from riyaz.artifact import TextPart
from riyaz.config import TOOLS
from riyaz.data import Example, Message
from riyaz.data.bounds import ROW
from riyaz.data.schema import expect_tools
from riyaz.data.task import Task
from riyaz.engine.drafts import LEAD
from riyaz.engine.engine import Engine
from riyaz.engine.grammar import Grammar, schema_grammar
from riyaz.engine.parts import Steps
from riyaz.engine.request import GREEDY, Request, Sampling
from riyaz.engine.tool_grammar import own_grammar
from riyaz.errors import RiyazError
from riyaz.predictor.beside import Beside
from riyaz.predictor.example_index import ExampleIndex
from riyaz.predictor.label_head import LabelHead
from riyaz.predictor.own_sampling import own_sampling
from riyaz.predictor.prediction import Prediction, citations
from riyaz.prompting import messages_for
from riyaz.text.calls import answer_form, calls_in, canonical
from riyaz.text.sentences import whole_sentences
from riyaz.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit, Retriever

SCHEMA = "schema"  # where errors of it are
MOST_PREFIXES = 32  # of prompts with tools, kept
SHARING = 4  # rows with the same tools, at least, for which their prefix is read by itself
SHARED_ANSWERS, SHARED_TOKENS = 16, 128  # most answers of several training rows to look for, and tokens of one
SHORTEST_PREFIX = 16  # tokens; reading a shorter common beginning again is faster than attending to it separately


class TooLong(RiyazError):
    """A prompt of `prompt` tokens that with `room` for the answer does not fit the context of `context`."""

    def __init__(self, prompt: int, room: int, context: int, where: str = "") -> None:
        what = f"the prompt has {prompt} tokens; with {room} for the answer it does not fit the context of {context}"
        super().__init__(what, where, "shorten it or choose a model with a longer context")
        self.prompt, self.room, self.context = prompt, room, context


def expect_short(text: str, where: str = "") -> None:
    """Raises RiyazError for a text of more than ROW characters, before it is searched with or tokenised."""
    if len(text) > ROW:
        raise RiyazError(f"the prompt has {len(text):,} characters; at most {ROW:,} are read", where, "shorten it")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A rendered conversation: the request for the engine, the passages in its prompt, best first, what a classifier
    beside the model adds to the labels' scores, (L,), and its messages, where questions are asked about them."""

    request: Request
    passages: "tuple[Hit, ...]" = ()
    beside: np.ndarray | None = None
    messages: tuple[Message, ...] = ()
    tools: bool = False  # whether the answer may call tools

    @property
    def citations(self) -> tuple[dict, ...]:
        """The document and the position in it of each passage."""
        return citations(self.passages)


class Chooser(Protocol):
    """A predictor that chooses answers by a search."""

    def choosing(self, prepared: Sequence[Prepared]) -> Steps[list[Prediction]]:
        """The best answer to each prepared conversation, in parts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptText:
    """The prompt around a question, without a model: a text part, and its task, examples and retriever.

    `text.examples` decides whether the prompt shows all `examples`, the nearest ones to the question, or none;
    `retriever` finds the `text.passages` passages.
    """

    text: TextPart = field(default_factory=TextPart)
    task: Task | None = None
    examples: tuple[Example, ...] = ()
    retriever: "Retriever | None" = None

    def conversations(self, conversations: Sequence[Sequence[Message]]) -> list[list[Message]]:
        """The messages that a model reads for each conversation, before the chat template; one search for all."""
        return [
            messages_for(self.text, self.task, messages, self._shown(messages), passages)
            for messages, passages in zip(conversations, self.passages(conversations))
        ]

    def passages(self, conversations: Sequence[Sequence[Message]]) -> "list[list[Hit]]":
        """The retrieved passages for the last message of each conversation, best first."""
        if self.retriever is None or not self.text.passages:
            return [[] for _ in conversations]
        return self.retriever.search([messages[-1]["content"] for messages in conversations], self.text.passages)

    def read_by(self, tokenizer: Tokenizer, lm: Engine, adapter: str | None = None) -> "PromptedModel":
        """The same prompt with a model."""
        return PromptedModel(
            text=self.text, task=self.task, examples=self.examples, retriever=self.retriever,
            tokenizer=tokenizer, lm=lm, adapter=adapter,
        )  # fmt: skip

    def _shown(self, messages: Sequence[Message]) -> Sequence[Example]:
        """The examples before this question: none, all, or the k nearest with the nearest last."""
        if self.text.examples == "nearest":
            return self._index.nearest(messages, self.text.k)[::-1]
        return self.examples if self.text.examples == "fixed" else ()

    @cached_property
    def _index(self) -> ExampleIndex:
        return ExampleIndex(self.examples)


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptedModel(PromptText):
    """A prompt with a model; `dataclasses.replace` gives a variant with another text part.

    `adapter` is the name under which `lm` has loaded the weights part, None for the base alone. `bare` opens the base
    where the weights part is a whole model. `head` is the weights part's head of labels, if it has one, and
    `beside` the classifier that answers together with it. `note` is one line about what could not be checked of an
    adapter's base. `schema` is the text of a JSON schema that generated answers keep to instead of the task's, or
    TOOLS.
    """

    has_model: ClassVar[Literal[True]] = True

    tokenizer: Tokenizer
    lm: Engine
    adapter: str | None = None
    bare: Callable[[], Engine] | None = None
    head: LabelHead | None = None
    beside: Beside | None = None
    note: str = ""
    schema: str = ""

    def parts(self) -> dict[str, Any]:
        """The fields that all kinds of predictors share, as arguments for another kind."""
        return {part.name: getattr(self, part.name) for part in fields(PromptedModel)}

    @property
    def served(self) -> str:
        """How the weights are held, in words."""
        return self.lm.served

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, those of a soft prompt not counted."""
        return self.lm.context - self.lm.adapter_tokens(self.adapter)

    @property
    def changes_weights(self) -> bool:
        """Whether the weights differ from the base's."""
        return self.adapter is not None or self.bare is not None

    def base(self) -> Self:
        """The same prompt on the base model: without the adapter, or instead of the fully trained model."""
        if self.bare is not None:
            return replace(self, lm=self.bare(), adapter=None, bare=None, head=None, beside=None)
        return replace(self, adapter=None, head=None, beside=None)

    @cached_property
    def grammar(self) -> Grammar | None:
        """What generated answers must be; None for text of any kind, and where the tools of each row decide. Raises
        RiyazError for a schema that cannot be followed, and without llguidance."""
        schema = self.answer_schema if self.answer_schema != TOOLS else ""
        return schema_grammar(self.tokenizer, schema, self.lm.runner.vocab_size, SCHEMA) if schema else None

    @property
    def answer_schema(self) -> str:
        """The text of the JSON schema that generated answers keep to, or TOOLS; "" for text of any kind."""
        return self.schema or (self.task.schema if self.task else "")

    @property
    def in_sentences(self) -> bool:
        """Whether an answer that a limit ends is cut to whole sentences."""
        return self.task is not None and self.answer_schema in ("", TOOLS)

    def usual_sampling(self) -> Sampling:
        """How tokens are drawn unless a call says otherwise: for a task the likeliest ones, as it was measured, else by
        the settings of the model's publisher. Raises RiyazError naming a wrong one of these."""
        return GREEDY if self.task is not None else own_sampling(self.tokenizer.files.generation)

    def prepare(
        self, conversations: Sequence[Sequence[Message]], where: Sequence[str] = (), *, room: int,
        passages: "Sequence[Sequence[Hit]] | None" = None, sampling: Sampling = GREEDY, tools: Sequence[dict] = (),
    ) -> list[Prepared]:  # fmt: skip
        """Prompts that leave `room` tokens for the answer, rendered in one batch.

        `passages` are the hits of each conversation, where already searched. A prompt longer than the context loses its
        worst passages first, then its first examples. Raises RiyazError, with the conversation's entry of `where`, for
        a question that does not fit by itself.
        """
        for row, messages in enumerate(conversations):
            expect_short(messages[-1]["content"], where[row] if row < len(where) else "")
        hits = [list(each) for each in (self.passages(conversations) if passages is None else passages)]
        examples = [list(self._shown(messages)) for messages in conversations]

        def read(row: int) -> list[Message]:
            return messages_for(self.text, self.task, conversations[row], examples[row], hits[row])

        prompts = self.tokenizer.render([read(row) for row in range(len(conversations))], tools=tools)
        longest = self._longest_prompt(room)
        for row in range(len(prompts)):
            while len(prompts[row]) > longest and (hits[row] or examples[row]):
                hits[row].pop() if hits[row] else examples[row].pop(0)
                prompts[row] = self.tokenizer.render([read(row)], tools=tools)[0]
        requests = self._requests(prompts, where, room, sampling, self._prefixes_of(conversations, tools))
        if self.answer_schema == TOOLS and not tools:  # else their sender says what the answer must be
            requests = [
                replace(request, grammar=self._of_tools(messages, where[row] if row < len(where) else ""))
                for row, (request, messages) in enumerate(zip(requests, conversations))
            ]
        called = [bool(tools or messages[0].get("tools")) for messages in conversations]
        return [Prepared(*each[:2], tools=each[2]) for each in zip(requests, map(tuple, hits), called)]

    def text_of(self, tokens: Sequence[int], limit: int, tools: bool = False) -> str:
        """A generated answer as text; with a task without a schema, an answer cut off at `limit` tokens ends after its
        last whole sentence. Where it may call `tools`, its calls are in the form in which rows have them."""
        form = answer_form(self.tokenizer.template) if tools else None
        marks = [self.tokenizer.added[mark] for mark in form.marks if mark in self.tokenizer.added] if form else []
        text = self.tokenizer.decode(tokens, marks).strip()
        if form and calls_in(text, form)[1]:
            return canonical(text, form)
        full = self.in_sentences and len(tokens) >= limit
        return (full and whole_sentences(text + " ")) or text

    def _of_tools(self, messages: Sequence[Message], where: str) -> Grammar | None:
        """What an answer must be by the tools of its own row, which a task's prompts without tools need not have.
        Raises RiyazError."""
        if tools := messages[0].get("tools"):
            return own_grammar(self.tokenizer, tools, self.lm.runner.vocab_size, where)
        if self.schema:
            expect_tools(None, where)
        return None

    def _longest_prompt(self, room: int) -> int:
        """Tokens of the longest prompt that leaves `room` tokens for the answer."""
        return self.context - room

    def _requests(
        self, prompts: Sequence[Sequence[int]], where: Sequence[str], room: int, sampling: Sampling = GREEDY,
        prefixes: Sequence[tuple[int, ...]] = (),
    ) -> list[Request]:  # fmt: skip
        """The requests of rendered prompts, each with its prefix if it begins with it; their ids are their indices.
        Raises RiyazError for a prompt too long."""
        longest = self._longest_prompt(room)
        if longest < 1:
            what = f"an answer of {room:,} tokens does not fit the context of {longest + room:,}"
            raise RiyazError(what, hint="allow fewer tokens, or choose a model with a longer context")
        requests = []
        for row, ids in enumerate(prompts):
            if len(ids) > longest:
                raise TooLong(len(ids), room, longest + room, where[row] if row < len(where) else "")
            prefix = prefixes[row] if prefixes else self._prefix
            common = len(prefix) if tuple(ids[: len(prefix)]) == prefix else 0
            requests.append(Request(
                row, tuple(ids[common:]), prefix=tuple(ids[:common]), adapter=self.adapter, limit=room,
                sampling=sampling, stop=self.tokenizer.eos_ids, grammar=self.grammar,
                likely=tuple((*ids[-LEAD:], *answer) for answer in self._shared_answers),
            ))  # fmt: skip
        return requests

    @cached_property
    def _shared_answers(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of answers that several training rows share, as far as the artifact knows them, with their end:
        the commonest last."""
        counts = Counter(example.answers[0] for example in self.examples if example.answers)
        shared = [answer for answer, count in counts.most_common(SHARED_ANSWERS) if count > 1]
        tokens = [self.tokenizer.encode(answer) for answer in dict.fromkeys((*self.text.common, *shared))]
        end = self.tokenizer.end_of_turn
        return tuple((*each, end) for each in reversed(tokens) if len(each) < SHARED_TOKENS)

    @cached_property
    def _prefix(self) -> tuple[int, ...]:
        """The tokens that every prompt without tools begins with."""
        return self._common(())

    def forget_tools(self) -> None:
        """Read the next prompts with tools as if they were the first, so that nothing of an answer depends on what was
        answered before."""
        self._with_tools.clear()

    @cached_property
    def _with_tools(self) -> dict[str, tuple[int, ...]]:
        """The prefixes of prompts with tools that were needed last, by `_opening`."""
        return {}

    def _prefixes_of(self, conversations: Sequence[Sequence[Message]], tools: Sequence[dict]) -> list[tuple[int, ...]]:
        """For each conversation the tokens that every prompt with its tools and its system turn begins with; none for
        tools that fewer than SHARING of them have, and that no earlier prompt had."""
        openings = [_opening(messages, tools) for messages in conversations]
        names = [json.dumps(opening) for opening in openings]
        known, counts = self._with_tools, Counter(names)
        prefixes = []
        for opening, name in zip(openings, names):
            if opening and name not in known and counts[name] >= SHARING:
                known[name] = self._common(opening, tools)
            prefixes.append(known.get(name, ()) if opening else self._prefix)
        while len(known) > MOST_PREFIXES:
            known.pop(next(iter(known)))
        return prefixes

    def _common(self, opening: Sequence[Message], tools: Sequence[dict] = ()) -> tuple[int, ...]:
        """The tokens shared by the prompts of two different questions behind the `opening`."""
        examples = self.examples if self.text.examples == "fixed" else ()
        probes = [
            messages_for(self.text, self.task, [*opening, {"role": "user", "content": probe}], examples)
            for probe in ("0", "Q")
        ]
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(*self.tokenizer.render(probes, tools=tools)))
        prefix = tuple(pair[0] for pair in pairs)
        return prefix if len(prefix) >= SHORTEST_PREFIX else ()


def _opening(messages: Sequence[Message], tools: Sequence[dict]) -> list[Message]:
    """The system turn of a conversation, with its tools; none where it has no tools."""
    own = messages[0].get("tools") or list(tools)
    if not own:
        return []
    system = [message for message in messages if message["role"] == "system"]
    return [{**(system[0] if system else {"role": "system", "content": ""}), "tools": own}, *system[1:]]
