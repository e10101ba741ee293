"""Answers that keep to a syntax, by llguidance, token by token: JSON of a schema for `response_format`, and calls of
tools for `tool_choice`. Without the package both are refused."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from riyaz.errors import install
from riyaz.serve.asking import Body, expect_shallow
from riyaz.serve.calls import HOLE, TAGGED, Form, Offer, form_of
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.text.tokenizer import Tokenizer

MAX_SCHEMA = 64 * 2**10  # characters
MOST_CALLS = 64  # of one answer, as a message may have when it is sent back
FORMAT, TOOLS = "response_format", "tools"
SPACES = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}  # as in prompts


@dataclass(frozen=True)
class Syntax:
    """What an answer must be, in llguidance's words, and the field `where` the client asks for it."""

    grammar: str
    where: str


class Grammar:
    """The tokens that an answer may go on with; used by one request."""

    def __init__(self, tokenizer: Tokenizer, syntax: Syntax, vocab_size: int) -> None:
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = LLMatcher(_tokens(tokenizer, vocab_size), syntax.grammar, log_level=0)
        self._where = syntax.where
        self._bits = allocate_token_bitmask(1, vocab_size)
        self._size = vocab_size
        self._expect_sound()

    def allowed(self) -> np.ndarray:
        """Whether each token may come next, (V,) bool; only end tokens after the end."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits, 0)
        self._expect_sound()
        mask: np.ndarray = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._size].astype(bool)
        return mask

    def accept(self, token: int) -> None:
        """Go on with a token."""
        self._matcher.consume_token(token)
        self._expect_sound()

    def _expect_sound(self) -> None:
        """Raises Problem where the schema leads nowhere, or to too much work: then nothing keeps to it any longer."""
        if error := self._matcher.get_error():
            said = "".join(letter if letter.isprintable() else "\ufffd" for letter in error.split("\n")[0][:200])
            what = f"{self._where}: the schema cannot be followed: {said}"
            raise Problem(400, what, self._where)


def syntax_of(body: Body, offer: Offer, served: Served) -> Syntax | None:
    """What the answer to a chat must be: calls where the client says so, else its `response_format`, else text in which
    calls keep to the schemas of strict tools; None for text of any kind. Raises Problem where it cannot be kept."""
    form = body.get("response_format") or {"type": "text"}
    if offer.must:
        _expect_package("tool_choice")
        return calls_syntax(offer, served.open.tokenizer)
    if form["type"] == "text":
        strict = offer.strict and find_spec("llguidance") is not None
        return strict_syntax(offer, served.open.tokenizer) if strict else None
    if served.predictor.from_set:
        raise Problem(400, f"{FORMAT}: {served.name} chooses or copies its answers", FORMAT, "unsupported_parameter")
    _expect_package(FORMAT)
    if form["type"] == "json_schema" and "json_schema" not in form:
        raise Problem(400, f"{FORMAT}.json_schema: is missing", f"{FORMAT}.json_schema", "missing_required_parameter")
    schema = form["json_schema"]["schema"] if form["type"] == "json_schema" else {"type": "object"}
    expect_shallow(schema, FORMAT)
    _expect_small(json.dumps(schema), FORMAT)
    return Syntax(_compiled(json.dumps(schema)), FORMAT)


def new_grammar(syntax: Syntax | None, served: Served) -> Grammar | None:
    """The state of one answer; None for text of any kind. Raises Problem for a schema that cannot be followed."""
    base = served.open
    return Grammar(base.tokenizer, syntax, base.lm.runner.vocab_size) if syntax else None


def calls_syntax(offer: Offer, tokenizer: Tokenizer) -> Syntax:
    """An answer that is calls of the offered tools and nothing else, in the form that the model's chat template shows,
    and in Qwen's where it shows none: at least one, only one where the offer says so, and the arguments of each by its
    tool's schema. Any route asks for it with `tool_choice` in the body that it gives to `chat.checked`. Raises
    Problem."""
    form = form_of(tokenizer.template) or TAGGED
    single = offer.single or offer.named
    return _lark(f"start: {_blocks(form, tokenizer, 1 if single else MOST_CALLS)}", offer, form, tokenizer)


def strict_syntax(offer: Offer, tokenizer: Tokenizer) -> Syntax | None:
    """An answer of text, in which calls are of the offered tools, by their schemas; None where the mark that opens a
    call is not one token of its own. Raises Problem."""
    form = form_of(tokenizer.template)
    mark = None if form is None else tokenizer.added.get(form.open)
    if form is None or form.bare or mark is None:
        return None
    most = MOST_CALLS if form.listed else 1  # blocks follow each other with any text between them
    start = f"start: (other* {_blocks(form, tokenizer, most)})* other*\nother: <[^{mark}]>"
    return _lark(start, offer, form, tokenizer)


def _blocks(form: Form, tokenizer: Tokenizer, most: int) -> str:
    """At most so many calls with their marks, in llguidance's words."""
    before, after = (_literal(text, form, tokenizer) for text in form.block.split(HOLE))
    joined = _literal(form.joined, form, tokenizer)
    more = "" if most == 1 else f"{{0,{most - 1}}}"
    if form.listed or most == 1:
        return f"{before} call {more and f'({joined} call){more}'} {after}"
    return f"{before} call {after} ({joined} {before} call {after}){more}"


def _lark(start: str, offer: Offer, form: Form, tokenizer: Tokenizer) -> Syntax:
    """A grammar of the rule `start` over calls of the tools that may be called."""
    before, between, after = (_literal(text, form, tokenizer) for text in form.call.split(HOLE))
    rules = []
    for place, tool in enumerate(offer.callable):
        name = json.dumps(json.dumps(tool["function"]["name"])[1:-1])
        schema = json.dumps(_arguments(tool, f"{TOOLS}.{offer.tools.index(tool)}.function.parameters"))
        rules.append(f"call{place}: {before} {name} {between} %json {schema} {after}")
    own = "".join(rules)
    _expect_small(own, TOOLS)
    # a text that contains a token's name is no such token, to which llguidance would force it
    options = {"no_forcing": True} if any(token in own for token in tokenizer.added) else {}
    call = " | ".join(f"call{place}" for place in range(len(rules)))
    return Syntax("\n".join([f"%llguidance {json.dumps(options)}", start, f"call: {call}", *rules, ""]), TOOLS)


def _arguments(tool: Body, where: str) -> Body:
    """The schema of a tool's arguments: an object, any one where the tool has none."""
    schema = tool["function"].get("parameters") or {}
    if schema.get("type", "object") != "object":
        raise Problem(400, f"{where}: describes no object", where)
    return {"type": "object", **schema, **SPACES}


def _literal(text: str, form: Form, tokenizer: Tokenizer) -> str:
    """A text in llguidance's words: its marks that are one token as that token, which no other tokens stand for."""
    marks = {mark: number for mark in form.marks if (number := tokenizer.added.get(mark)) is not None}
    parts = re.split("|".join(f"({re.escape(mark)})" for mark in marks), text) if marks else [text]
    return " ".join(f"<[{marks[part]}]>" if part in marks else json.dumps(part) for part in parts if part)


def _expect_package(where: str) -> None:
    if find_spec("llguidance") is None:
        what = f"{where}: the server needs llguidance for it; {install('json')}"
        raise Problem(400, what, where, "unsupported_parameter")


def _expect_small(schema: str, where: str) -> None:
    if len(schema) > MAX_SCHEMA:
        raise Problem(400, f"{where}: the schema has more than {MAX_SCHEMA:,} characters", where)


@lru_cache(maxsize=64)
def _compiled(schema: str) -> str:
    from llguidance import LLMatcher

    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:
        raise Problem(400, f"{FORMAT}: {str(error).splitlines()[0][:200]}", FORMAT) from None
    return grammar


@lru_cache(maxsize=4)
def _tokens(tokenizer: Tokenizer, vocab_size: int) -> Any:
    """The tokenizer as llguidance has it."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.files.definition, n_vocab=vocab_size, eos_token=tokenizer.end_of_turn)
