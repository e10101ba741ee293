"""From the fields of a request to prepared prompts: messages, sampling, limits. Nothing is generated here."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from riyaz.data import Message
from riyaz.data.bounds import ROW
from riyaz.data.schema import MAX_DEPTH, is_deep
from riyaz.engine.engine import Engine
from riyaz.engine.grammar import Grammar
from riyaz.engine.request import GREEDY, Added, Sampling
from riyaz.predictor import ModelPredictor, Prepared, PromptedModel
from riyaz.serve.calls import Offer, earlier_calls
from riyaz.serve.generation import Generation
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.text import Text
from riyaz.text.calls import Calls

Body = dict[str, Any]
DRAWN = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
READ = ("role", "content", "tool_calls", "tool_call_id", "refusal")  # of a message
PART = ("type", "text", "annotations", "logprobs")
PLAIN_NUMBER = re.compile("0|[1-9][0-9]{0,11}")  # of a token; "077" would be a second key of the same one
IDLE = (*DRAWN, "seed", "frequency_penalty", "presence_penalty", "logit_bias", "stop", "max_tokens",
        "max_completion_tokens", "ignore_eos")  # fmt: skip


@dataclass(frozen=True)
class Turns:
    """A conversation up to the user's last turn, and the beginning of the answer, where the client gave one."""

    messages: tuple[Message, ...]
    begun: str = ""
    tools: tuple[Body, ...] = ()


def turns_of(messages: Sequence[Body], served: Served, tools: Sequence[Body] = ()) -> Turns:
    """The conversation of OpenAI's messages; a last message of the assistant is the beginning of the answer. Raises
    Problem 400 for what the model's template does not write."""
    # an artifact has learned from rows in which tools are text where the template writes none
    learned = served.predictor.task is not None
    takes = not served.predictor.from_set and (served.open.tokenizer.takes_tools or learned)
    if tools and not takes:
        raise Problem(400, f"tools: {served.name} writes none into its prompts", "tools", "unsupported_parameter")
    for place, tool in enumerate(tools):
        expect_shallow(tool, f"tools.{place}")
    turns = [_turn(message, f"messages.{place}", takes) for place, message in enumerate(messages)]
    _expect_short_together(turns, tools)
    ends = len(turns) > 1 and turns[-1]["role"] == "assistant" and "tool_calls" not in turns[-1]
    begun = turns.pop()["content"] if ends else ""
    if begun and served.predictor.from_set:
        raise Problem(400, f"messages: {served.name} chooses or copies its answers, which cannot be begun", "messages")
    if turns[-1]["role"] not in ("user", "tool"):
        raise Problem(400, "messages: the last one is not the user's", "messages")
    return Turns(tuple(turns), begun, tuple(tools))


def offer_of(body: Body) -> Offer:
    """The tools that a request offers, and what `tool_choice` and `parallel_tool_calls` let the answer do with them.
    Raises Problem for a choice among tools that are not there, and for two tools of one name."""
    tools, choice = tuple(body.get("tools", ())), body.get("tool_choice", "auto")
    names = [tool["function"]["name"] for tool in tools]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise Problem(400, f"tools.{place}.function.name: {name[:64]!a} is twice", f"tools.{place}.function.name")
    if not tools and choice not in ("auto", "none"):
        raise Problem(400, "tool_choice: needs tools", "tool_choice")
    if not tools or choice == "none":
        return Offer()
    single = body.get("parallel_tool_calls") is False
    if isinstance(choice, str):
        return Offer(tools, tools, must=choice == "required", single=single)
    kind = choice["type"]
    if kind not in choice:
        raise Problem(400, f"tool_choice.{kind}: is missing", f"tool_choice.{kind}", "missing_required_parameter")
    wanted = [choice] if kind == "function" else choice[kind]["tools"]
    for tool in wanted:
        if tool["function"]["name"] not in names:
            what = f"tool_choice: {tool['function']['name'][:64]!a} is none of the tools"
            raise Problem(400, what, "tool_choice")
    among = {tool["function"]["name"] for tool in wanted}
    callable_ = tuple(tool for tool in tools if tool["function"]["name"] in among)
    must = kind == "function" or choice[kind]["mode"] == "required"
    return Offer(tools, callable_, must, named=kind == "function", single=single)


def _turn(message: Body, where: str, tools: bool) -> Message:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls") or ()
    if (role == "tool" or calls) and not tools:
        raise Problem(400, f"{where}: the model's chat template writes no tools", where, "unsupported_parameter")
    if calls and role != "assistant":
        raise Problem(400, f"{where}.tool_calls: are the assistant's", f"{where}.tool_calls")
    if content is None and calls:
        content = ""
    if content is None:
        raise Problem(400, f"{where}.content: is missing", f"{where}.content", "missing_required_parameter")
    text = content if isinstance(content, str) else "".join(_part(part, f"{where}.content") for part in content)
    expect_short(text, f"{where}.content")
    turn: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text}
    if role == "tool" and message.get("tool_call_id"):
        turn["tool_call_id"] = message["tool_call_id"]
    made = earlier_calls(calls, f"{where}.tool_calls")
    for place, call in enumerate(made):
        expect_shallow(call["function"]["arguments"], f"{where}.tool_calls.{place}.function.arguments")
    return turn | ({"tool_calls": made} if made else {})


def expect_short(text: str, where: str) -> None:
    """Raises Problem for a text of more characters than are tokenised."""
    if len(text) > ROW:
        raise Problem(400, f"{where}: has {len(text):,} characters, and at most {ROW:,} are read", where)


def _expect_short_together(turns: Sequence[Message], tools: Sequence[Body]) -> None:
    """Raises Problem for a conversation that together has more characters than are tokenised."""
    written = [turn["content"] for turn in turns] + [json.dumps(tool, ensure_ascii=False) for tool in tools]
    if (length := sum(map(len, written))) > ROW:
        what = f"have {length:,} characters" + (" with tools" if tools else "")
        raise Problem(400, f"messages: {what}, and at most {ROW:,} are read", "messages")


def expect_shallow(schema: Any, where: str) -> None:
    """Raises Problem for a schema of more than MAX_DEPTH objects within each other, and for arguments as deep."""
    if is_deep(schema):
        raise Problem(400, f"{where}: is nested more than {MAX_DEPTH} deep", where)


def _part(part: Body, where: str) -> str:
    if part.get("type") not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
        raise Problem(400, f"{where}: only parts of type text are read", where, "unsupported_parameter")
    text: str = part["text"]
    return text


def sampling_of(body: Body, model: PromptedModel) -> Sampling:
    """How tokens are drawn: as asked, else as is usual for the model. A draw without a seed has one that nobody
    knows."""
    own = GREEDY if "temperature" in body else model.usual_sampling()
    drawn = {name: type(getattr(GREEDY, name))(body[name]) for name in DRAWN if name in body}
    seed = int(body["seed"]) if "seed" in body else secrets.randbits(63)
    return replace(own, **drawn, seed=seed)


def added_of(body: Body, lm: Engine) -> Added | None:
    """What is added to log-probabilities; None where nothing is asked. Raises Problem for a token that is none."""
    bias = []
    for key, value in body.get("logit_bias", {}).items():
        number = int(key) if PLAIN_NUMBER.fullmatch(key) else lm.runner.vocab_size
        if number >= lm.runner.vocab_size:
            raise Problem(400, f"logit_bias: {key[:20]!a} is no token of the model", "logit_bias")
        bias.append((number, float(value)))
    frequency, presence = float(body.get("frequency_penalty", 0)), float(body.get("presence_penalty", 0))
    return Added(tuple(bias), frequency, presence) if bias or frequency or presence else None


def stops_of(body: Body) -> list[str]:
    """The stop strings."""
    stop = body.get("stop", [])
    return [stop] if isinstance(stop, str) else list(stop)


def limit_of(body: Body, most: int | None) -> int | None:
    """The limit of the answer that was asked for. Raises Problem where the server allows less."""
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    limit = body.get(name)
    if limit is not None and most is not None and limit > most:
        raise Problem(400, f"{name}: {limit} is larger than {most}, which this server allows", name)
    return None if limit is None else int(limit)


def prepared(model: ModelPredictor, turns: Turns, limit: int | None, most: int | None) -> Prepared:
    """The prompt of a conversation. Without a limit the answer may have as many tokens as an artifact was measured
    with, and of a plain model what context and memory hold. Raises RiyazError, TooLong for a prompt that does not
    fit."""
    begun = model.tokenizer.answer_ids([turns.begun])[0][:-1] if turns.begun else []
    usual = None if model.task is None else model.max_new_tokens
    room = limit or usual or 1
    (made,) = model.prepare([turns.messages], room=room + len(begun), tools=turns.tools)
    if limit is None and usual is None and not model.from_set:
        fits = max(1, model.lm.room(made.request) - len(begun))
        room = fits if most is None else min(fits, most)
    request = replace(made.request, tokens=(*made.request.tokens, *begun), limit=room)
    return replace(made, request=request) if not model.from_set else made


def generation_of(
    model: ModelPredictor, prepared: Prepared, body: Body, index: int, sampling: Sampling, top: int | None,
    grammar: Grammar | None, calls: Calls | None = None,
) -> Generation:  # fmt: skip
    """One answer to a prepared prompt; draws of several answers differ by their index."""
    stop = frozenset() if body.get("ignore_eos") else prepared.request.stop
    request = replace(
        prepared.request, id=index, sampling=sampling, added=added_of(body, model.lm), top=top, stop=stop,
        grammar=grammar,
    )  # fmt: skip
    marks = [model.tokenizer.added.get(mark) for mark in calls.form.marks] if calls else []
    sentences = model.in_sentences and (grammar is None or calls is not None)
    text = Text(model.tokenizer, stops_of(body), sentences, [mark for mark in marks if mark is not None])
    return Generation(model.lm, request, text, first=index == 0, calls=calls)


def idle_members(messages: Sequence[Body]) -> list[str]:
    """Members of messages and of their parts that say nothing to the model, such as `messages.name`."""
    idle: dict[str, int] = {}
    for message in messages:
        idle |= {f"messages.{name}": 1 for name in message if name not in READ and message[name] is not None}
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            idle |= {f"messages.content.{name}": 1 for name in part if name not in PART and part[name]}
    return list(idle)


def idle_fields(body: Body, served: Served) -> list[str]:
    """Fields that change nothing where an answer is chosen or copied."""
    return [name for name in IDLE if name in body] if served.predictor.from_set else []
