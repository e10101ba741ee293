"""A model that was opened: it answers a plain string as a user's message, conversations, and rows of a table.

The same predictor and engine as behind the commands, in this process.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, get_args, overload

from riyaz.artifact import reading_of
from riyaz.config import Kv, Lookup, Precision, SamplingConfig
from riyaz.data import Message, Reading
from riyaz.data.conversations import RowProblem, conversation
from riyaz.data.formats import load
from riyaz.data.memory import MARK, RowSource, path_or_table
from riyaz.data.schema import read_schema, schema_text
from riyaz.engine.parts import finished
from riyaz.engine.request import Sampling
from riyaz.errors import RiyazError, brief
from riyaz.events import Listen
from riyaz.inside import Inside, message_tokens, read, text_tokens
from riyaz.library.decision import Asked, Decisions, decision_of, given_questions, questions_for
from riyaz.library.hints import in_python
from riyaz.library.options import LimitsOptions, Place, ReadingOptions, checked_options, resolve_options
from riyaz.library.progress import heard, resumable
from riyaz.predictor import (
    ModelPredictor,
    Prediction,
    Predictor,
    PromptedModel,
    Stream,
    deciding_rows,
    keeping_to,
    open_target,
)

if TYPE_CHECKING:
    from riyaz.inside.rows import RowsInside
    from riyaz.library.measured_limits import MeasuredLimits

Messages = str | Sequence[Mapping[str, Any]]
Schema = Mapping[str, Any] | Place  # a JSON schema, or the path of its file
Progress = Callable[[int, int], None]  # (done, total)
IN_MEMORY = "data"  # the name of rows in memory in errors


class Token(NamedTuple):
    """A token and its log-probability in nats."""

    text: str
    id: int
    logprob: float

    @property
    def probability(self) -> float:
        """e to the log-probability."""
        return math.exp(self.logprob)


class SamplingOptions(TypedDict, total=False):
    """How tokens are drawn: the fields of `engine.request.Sampling`. Without `temperature` each is the likeliest."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A base model, an artifact or an adapter, ready to answer. `open` makes one.

    Messages are a string, which is the user's, or a list of `{"role": …, "content": …}` that ends with the user's.
    Answers of a closed set or copied ones take no notice of `max_tokens` and of sampling. `schema` is a JSON schema, as
    a dictionary or the path of a file, that a generated answer keeps to, token by token; without it an artifact's own.
    """

    name: str
    predictor: Predictor
    reading: Reading | None = None  # of the rows that an artifact was made from; rows with its columns are read so

    def answer(
        self, messages: Messages, *, max_tokens: int | None = None, schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str:  # fmt: skip
        """The answer to one conversation. Raises RiyazError."""
        drawn, limit = _sampling(sampling), _limit(max_tokens)
        return self._keeping_to(schema).answer(_conversation(messages, "messages"), limit, drawn)

    def chat(
        self, messages: Messages, *, max_tokens: int | None = None, schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Message:  # fmt: skip
        """The answer as the next message, to be appended to `messages`. Raises RiyazError."""
        answer = self.answer(messages, max_tokens=max_tokens, schema=schema, **sampling)
        return {"role": "assistant", "content": answer}

    def stream(
        self, messages: Messages, *, max_tokens: int | None = None, schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Stream:  # fmt: skip
        """The answer as it is made: iterate over its pieces, which joined are the answer; `citations` names the
        documents in its prompt. Raises RiyazError."""
        drawn, limit = _sampling(sampling), _limit(max_tokens)
        model = self._keeping_to(schema)
        return model.stream(_conversation(messages, "messages"), max_tokens=limit, sampling=drawn)

    def answers(
        self, rows: RowSource | Sequence[Messages], *, prompt_column: str | None = None, encoding: str | None = None,
        max_tokens: int | None = None, schema: Schema | None = None, progress: Progress | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[str]:  # fmt: skip
        """The answer to every row, in their order: rows as `predictions` takes them. Raises RiyazError."""
        made = self.predictions(
            rows, prompt_column=prompt_column, encoding=encoding, max_tokens=max_tokens, schema=schema,
            progress=progress, **sampling,
        )  # fmt: skip
        return [prediction.text for prediction in made]

    def predictions(
        self, rows: RowSource | Sequence[Messages], *, prompt_column: str | None = None, encoding: str | None = None,
        max_tokens: int | None = None, schema: Schema | None = None, progress: Progress | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Prediction]:  # fmt: skip
        """The answers with their log-probabilities, where answers are chosen from a set, and citations.

        `rows` are a path, a DataFrame, or a list: of dictionaries, of conversations, or of strings, each of which is a
        user's message. `progress` is told (done, total). Raises RiyazError.
        """
        drawn, limit = _sampling(sampling), _limit(max_tokens)
        with in_python():
            conversations, where = _conversations(rows, prompt_column, encoding, self.reading)
            model = self._keeping_to(schema)
            return model.answers(conversations, where, max_tokens=limit, sampling=drawn, progress=progress)

    @overload  # a string is a sequence of strings too
    def decide(  # type: ignore[overload-overlap]
        self, text: Messages, questions: Asked | None = None
    ) -> Decisions: ...

    @overload
    def decide(
        self, text: Sequence[str | Sequence[Mapping[str, Any]]], questions: Asked | None = None
    ) -> list[Decisions]: ...

    def decide(self, text: Any, questions: Asked | None = None) -> Decisions | list[Decisions]:
        """The answers to typed questions about a text or a conversation, by the names of the questions; about a list of
        them a list, in their order.

        `questions` are dictionaries in the form of OpenAI's decisions, each with a name, objects of `Question`, or the
        path of a file; without them those that the artifact was trained on. None is the answer to a question that
        nothing can answer: the artifact was not trained on it, and no language model is open. Raises RiyazError.
        """
        conversations, where, one = _asked_about(text)
        with in_python():
            typed_questions = questions_for(self.predictor, given_questions(questions), self.name)
            rows = finished(deciding_rows(self.predictor, conversations, typed_questions, where))
        answers = [
            Decisions(
                (question.name, decision_of(each) if each else None) for question, each in zip(typed_questions, decided)
            )
            for decided in rows
        ]
        return answers[0] if one else answers

    def logprobs(self, messages: Messages, answer: str) -> list[Token]:
        """The tokens of this answer to one conversation, end token included, each with its log-probability in nats;
        over all tokens, also where the model answers from a closed set. Raises RiyazError."""
        model = self._prompted()
        (tokens,) = model.tokenizer.answer_ids([answer])
        (prepared,) = model.prepare([_conversation(messages, "messages")], room=len(tokens))
        (scores,) = model.lm.logprobs([prepared.request], [tokens])
        return [Token(model.tokenizer.token_text(token), int(token), float(p)) for token, p in zip(tokens, scores)]

    def next_tokens(self, text: str, top: int = 10, temperature: float = 1.0) -> list[Token]:
        """The likeliest tokens after a text, which is taken as it is, without chat template or examples; the likeliest
        first, with their log-probabilities at that temperature. Raises RiyazError."""
        if top < 1:
            raise RiyazError(f"{top} tokens are too few", "top", "give at least 1")
        if not 0 < temperature < math.inf:
            raise RiyazError(f"{temperature:g} is no temperature to divide by", "temperature", "give a number above 0")
        with in_python():
            return next_tokens(self._prompted(), text, top, temperature)

    def inside(self, text: str, *, at: int = -1, chat: bool = False) -> Inside:
        """What the model computes between a text and its next token, as numpy arrays: the residual stream, queries and
        keys of every token, and the logit lens of the token `at`. The text is taken as it is; with `chat` it is a
        user's message in the model's own prompt. Raises RiyazError."""
        with in_python():
            model = self._prompted()
            return read(model, message_tokens(model, text) if chat else text_tokens(model, text), at)

    def inside_rows(
        self, rows: RowSource, *, layers_off: bool = False, limit: int | None = None, listen: Listen | None = None,
        quiet: bool = True, **reading: Unpack[ReadingOptions],
    ) -> "RowsInside":  # fmt: skip
        """What happens inside on many rows with answers, a path, a DataFrame or a list of dictionaries: behind which
        layers wrong labels took over, where the model looks in its passages and, with `layers_off`, the score with each
        layer of the adaptation switched off alone. What is chosen by looking at rows is not tested on them any more.
        Progress is handed to `listen`, or shown on stderr without `quiet`. Raises RiyazError."""
        from riyaz.inside.rows import inside_rows
        from riyaz.target_scores import open_scored

        names = checked_options("inside_rows", reading, ReadingOptions, "layers_off", "limit", "listen", "quiet")
        with in_python(), heard(listen, quiet) as listener:
            table = path_or_table(rows, IN_MEMORY)
            config, _ = resolve_options(table, names)
            opened = open_scored(self.name, table, config, limit=limit, opened=self.predictor, listen=listener)
            return inside_rows(opened, layers_off, listener)

    def limits(
        self, *, out: Place | None = None, listen: Listen | None = None, quiet: bool = False,
        **options: Unpack[LimitsOptions],
    ) -> "MeasuredLimits":  # fmt: skip
        """What the model cannot do: bias, truth, context, cost, fragility; `riyaz limits`, with its options, such as
        `suite=["bias"], budget="2m"`. limits.json is written to the folder `out`, or into an artifact's own. Progress
        as in `compare`. Raises RiyazError."""
        from riyaz.library.measuring import measure

        names = checked_options("limits", options, LimitsOptions, "out", "listen", "quiet")
        with in_python(), resumable(), heard(listen, quiet) as listener:
            return measure(self.name, self.predictor, names, out, listener)

    def _keeping_to(self, schema: Schema | None) -> Predictor:
        """The predictor whose answers keep to a schema."""
        if schema is None:
            return self.predictor
        if not isinstance(schema, Mapping):
            return keeping_to(self.predictor, read_schema(fspath(schema)), str(schema))
        try:
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RiyazError(
                f"is no JSON ({str(error)[:100]})", "schema", "give a JSON Schema as a dictionary"
            ) from None
        return keeping_to(self.predictor, schema_text(text, "schema"), "schema")

    def _prompted(self) -> ModelPredictor:
        if not self.predictor.has_model:
            what = "has no language model, so no next tokens"
            raise RiyazError(what, self.name, "open a model, or an artifact with one")
        return self.predictor

    def __repr__(self) -> str:
        return f"riyaz.open({self.name!r})"


def open(
    target: Place, *, model: Place | None = None, precision: Precision = "auto", kv: Kv = "auto",
    lookup: Lookup | None = None,
) -> Model:  # fmt: skip
    """A model by name or path, an artifact, an adapter or a comparison's folder (its pick), ready to answer.

    `model` says where the base of an artifact or adapter is now. `precision` is how weights are served: "fp32",
    "bf16", "int8", "int4", or "auto", which is as the file stores them, float32 as bf16. `kv` is how keys and values
    are held: "bf16", "int8" in about half the memory, or "auto": bf16, and fp32 where `precision` is. `lookup` makes
    several tokens in one pass where answers repeat their prompts: "on", "off" or "auto", where that is faster; the text
    is the same. Raises RiyazError.
    """
    if precision not in get_args(Precision):
        hint = f"choose one of {', '.join(get_args(Precision))}"
        raise RiyazError(f"unknown precision {brief(precision)}", "precision", hint)
    if lookup not in (None, *get_args(Lookup)):
        raise RiyazError(f"unknown lookup {brief(lookup)}", "lookup", f"choose one of {', '.join(get_args(Lookup))}")
    with in_python():
        predictor = open_target(str(target), str(model) if model is not None else None, precision, kv, lookup)
        return Model(str(target), predictor, reading_of(str(target)))


def next_tokens(model: PromptedModel, text: str, top: int, temperature: float = 1.0) -> list[Token]:
    """The `top` most likely tokens after the text, as `Model.next_tokens`; `riyaz predict` shows them."""
    tokens = text_tokens(model, text)
    if not 0 < len(tokens) < model.lm.context:
        raise RiyazError(
            f"the text has {len(tokens)} tokens", "TEXT", f"give at least one and fewer than {model.lm.context}"
        )
    every = temperature != 1  # all tokens are needed to divide by their new sum
    candidates = model.lm.next_tokens(tokens, model.lm.runner.vocab_size if every else top, model.adapter)
    likeliest = at_temperature(candidates, temperature)[:top] if every else candidates
    return [Token(model.tokenizer.token_text(token), token, log_probability) for token, log_probability in likeliest]


def at_temperature(tokens: Sequence[tuple[int, float]], temperature: float) -> list[tuple[int, float]]:
    """(token, log-probability) of the whole vocabulary with the log-probabilities divided by the temperature, and less
    the logarithm of what they then add up to."""
    highest = max(log_probability for _, log_probability in tokens)
    scaled = [(log_probability - highest) / temperature for _, log_probability in tokens]
    total = math.log(sum(map(math.exp, scaled)))
    return [(token, value - total) for (token, _), value in zip(tokens, scaled)]


def _conversation(messages: Any, where: str) -> tuple[Message, ...]:
    """Messages up to the user's last one, in any writing that rows may have. Raises RiyazError."""
    hint = 'give a string, or a list of {"role": "user", "content": "…"}'
    if isinstance(messages, str):
        if not messages.strip():
            raise RiyazError("the message is empty", where, hint)
        return ({"role": "user", "content": messages},)
    try:
        turns, answer = conversation(list(messages), "messages", None, [], answers_required=False)
    except RowProblem as problem:
        raise RiyazError(str(problem), where, hint) from None
    except TypeError:
        raise RiyazError(f"{type(messages).__name__} is not a list of messages", where, hint) from None
    if answer is not None:
        raise RiyazError("the last message is not the user's", where, hint)
    return turns


def _asked_about(text: Any) -> tuple[list[Sequence[Message]], list[str], bool]:
    """The conversations that are asked about, where each stands, and whether it is one that is not in a list."""
    many = isinstance(text, Sequence) and not isinstance(text, (str, bytes))
    if not many or (text and isinstance(text[0], Mapping)):
        return [_conversation(text, "text")], ["text"], True
    where = [f"text{MARK}{number}" for number in range(1, len(text) + 1)]
    return [_conversation(each, place) for each, place in zip(text, where)], where, False


def _conversations(
    rows: Any, prompt_column: str | None, encoding: str | None, like: Reading | None
) -> tuple[list[Sequence[Message]], list[str]]:
    """The conversations of rows, and where each stands."""
    if not isinstance(rows, (str, PathLike)) and not hasattr(rows, "columns"):
        rows = list(rows) if hasattr(rows, "__iter__") and not isinstance(rows, (Mapping, bytes)) else rows
        if isinstance(rows, list) and (not rows or isinstance(rows[0], (str, list, tuple))):
            where = [f"{IN_MEMORY}{MARK}{number}" for number in range(1, len(rows) + 1)]
            return [_conversation(row, place) for row, place in zip(rows, where)], where
        if isinstance(rows, list) and all(isinstance(row, Mapping) and {"role", "content"} <= {*row} for row in rows):
            raise RiyazError("is one conversation", IN_MEMORY, "ask for its answer, or give a list of conversations")
    table = path_or_table(rows, IN_MEMORY)
    read = load(table, prompt_column=prompt_column, encoding=encoding, answers_required=False, like=like)
    return [example.messages for example in read.examples], [example.where for example in read.examples]


def _limit(max_tokens: int | None) -> int | None:
    if max_tokens is not None and max_tokens < 1:
        raise RiyazError(f"{max_tokens} tokens are too few", "max_tokens", "give at least 1")
    return max_tokens


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """How tokens are drawn. RiyazError for an option that there is not, or a value out of its range."""
    for name in options:
        if name not in SamplingOptions.__annotations__:
            known = ", ".join(("max_tokens", "schema", *SamplingOptions.__annotations__))
            raise RiyazError(f"there is no option {name!r}", hint=f"options: {known}")
    with in_python():
        return Sampling(**SamplingConfig(**options).explicit())
