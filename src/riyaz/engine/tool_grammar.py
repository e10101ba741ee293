"""Grammars of answers that may call tools, in the form that a model's chat template shows: text or calls, or calls and
nothing else. A call has the name of a tool, and arguments by its schema."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from riyaz.config import TOOLS
from riyaz.data.schema import MAX_DEPTH, MAX_SCHEMA, is_deep
from riyaz.engine.grammar import FREELY, Grammar, Unfollowable, misfit_of
from riyaz.errors import RiyazError
from riyaz.text.calls import HOLE, TAGGED, WHITE, Form, answer_form
from riyaz.text.tokenizer import Tokenizer

MOST_CALLS = 64  # of one answer, as a message may have when it is sent back
SPACES = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}  # as in prompts
KEPT_GRAMMARS = 64  # compiled, of different sets of tools

Tools = Sequence[Mapping[str, Any]]  # definitions in OpenAI's form
Marks = Mapping[str, int]  # the marks of a form that are one token


def calls_rules(offered: Tools, callable_: Tools, form: Form, added: Marks, *, single: bool) -> str:
    """An answer that is calls of the callable ones of the offered tools and nothing else: at least one, only one where
    it is `single`. Raises Unfollowable."""
    return _rules(f"start: {_blocks(form, added, 1 if single else MOST_CALLS)}", offered, callable_, form, added)


def strict_rules(offered: Tools, callable_: Tools, form: Form, added: Marks) -> str:
    """An answer of text with calls anywhere in it, for a form whose opening mark is one token. Raises Unfollowable."""
    most = MOST_CALLS if form.listed else 1  # blocks follow each other with any text between them
    start = f"start: (other* {_blocks(form, added, most)})* other*\nother: <[^{added[form.open]}]>"
    return _rules(start, offered, callable_, form, added)


def text_or_calls_rules(
    offered: Tools, callable_: Tools, form: Form, added: Marks, *, single: bool = False
) -> str:  # fmt: skip
    """An answer of text, of calls, or of text with calls behind it; no other text begins a call, in whichever tokens
    its mark is written. Raises Unfollowable."""
    mark, most = _pattern(form.open), 1 if single else MOST_CALLS
    blocks = _blocks(form, added, most)
    plain = f"TEXT: /(?s:.+)/ & ~/(?s:.*){mark}(?s:.*)/"
    if form.bare:  # which stands at the beginning alone, and text may not begin as one
        before = "".join(f"\\x{ord(letter):02x}" for letter in sorted({*WHITE, *form.joined}))
        start = f"start: TEXT? | {blocks}\n{plain} & ~/[{before}]*\\{{(?s:.*)/"
    elif form.open in added:
        start = f"start: TEXT? ({blocks})?\n{plain}"
    else:  # the mark is letters like others: a lexer, which is greedy, reads it with the text before it
        head = f"HEAD: /(?s:.*){mark}/ & ~/(?s:.*){mark}(?s:.+)/"
        start = f"start: TEXT? | {_blocks(form, added, most, first='HEAD')}\n{plain}\n{head}"
    return _rules(start, offered, callable_, form, added)


def marks_of(form: Form, tokenizer: Tokenizer) -> dict[str, int]:
    """The marks of a form that are one token of a model, and its number."""
    return {mark: number for mark in form.marks if (number := tokenizer.added.get(mark)) is not None}


def expect_form(tokenizer: Tokenizer, where: str) -> Form:
    """The form of a model's calls. Raises RiyazError where its template shows none that is known."""
    form = answer_form(tokenizer.template)
    if form is None:
        what = "the model's chat template writes calls of tools in a form that riyaz does not know"
        raise RiyazError(what, where, "choose another model, or leave out --schema tools")
    return form


def own_grammar(tokenizer: Tokenizer, tools: Tools, vocab_size: int, where: str) -> Grammar:
    """What an answer must be that may call the tools of its row, from `where`: text or calls. Compiled once for all
    rows with the same tools. Raises RiyazError for tools that cannot be followed, and without llguidance."""
    try:
        return _compiled(tokenizer, expect_form(tokenizer, ""), json.dumps(tools), vocab_size)
    except RiyazError as error:
        raise _in_row(error, where) from None


def _in_row(error: RiyazError, where: str) -> RiyazError:
    """An error about a part of a row's tools, with the row before the part."""
    place = ": ".join(part for part in (where, error.where) if part)
    return type(error)(error.what, place, error.hint)


@lru_cache(maxsize=KEPT_GRAMMARS)
def _compiled(tokenizer: Tokenizer, form: Form, tools: str, vocab_size: int) -> Grammar:
    offered = json.loads(tools)
    rules = text_or_calls_rules(offered, offered, form, marks_of(form, tokenizer))
    return Grammar(tokenizer, rules, vocab_size, TOOLS)


def call_misfit(tools: Tools, answer: str, where: str) -> str:
    """In which way the answer of a row is not what a model could write with its tools; "" if it is. Raises RiyazError
    for tools that cannot be followed."""
    try:
        rules = _row_rules(json.dumps(tools))
    except RiyazError as error:
        raise _in_row(error, where) from None
    read, whole = misfit_of(rules, answer, where)
    if whole:
        return ""
    if read == len(answer.encode("utf-8", "replace")):
        return "it ends within a call"
    before = ascii(answer.encode("utf-8", "replace")[:read].decode("utf-8", "replace")[-24:])
    return f"its tools have something else behind {before}, or arguments in another order"


@lru_cache(maxsize=KEPT_GRAMMARS)
def _row_rules(tools: str) -> str:
    """The rules of answers as rows have them."""
    offered = json.loads(tools)
    return text_or_calls_rules(offered, offered, TAGGED, {})


def _blocks(form: Form, added: Marks, most: int, first: str = "") -> str:
    """At most so many calls with their marks, in llguidance's words; `first` stands for the first opening mark."""
    before, after = (_literal(text, added) for text in form.block.split(HOLE))
    behind = _literal(form.block.split(HOLE)[0].removeprefix(form.open), added)
    begin, joined = f"{first} {behind}" if first else before, _literal(form.joined, added)
    more = "" if most == 1 else f"{{0,{most - 1}}}"
    if form.listed or most == 1:
        return f"{begin} call {more and f'({joined} call){more}'} {after}"
    return f"{begin} call {after} ({joined} {before} call {after}){more}"


def _rules(start: str, offered: Tools, callable_: Tools, form: Form, added: Marks) -> str:
    """A grammar of the rule `start` over calls of the tools that may be called."""
    before, between, after = (_literal(text, added) for text in form.call.split(HOLE))
    calls = []
    for place, tool in enumerate(callable_):
        name = json.dumps(json.dumps(tool["function"]["name"])[1:-1])
        schema = json.dumps(_arguments(tool, f"{TOOLS}.{offered.index(tool)}.function.parameters"))
        calls.append(f"call{place}: {before} {name} {between} %json {schema} {after}")
    if len("".join(calls)) > MAX_SCHEMA:
        raise Unfollowable(f"the schema has more than {MAX_SCHEMA:,} characters", TOOLS)
    call = " | ".join(f"call{place}" for place in range(len(calls)))
    return "\n".join([f"%llguidance {json.dumps(FREELY)}", start, f"call: {call}", *calls, ""])


def _arguments(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, any one where the tool has none."""
    schema = tool["function"].get("parameters") or {}
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise Unfollowable("describes no object", where)
    if is_deep(schema):
        raise Unfollowable(f"is nested more than {MAX_DEPTH} deep", where)
    return {"type": "object", **schema, **SPACES}


def _literal(text: str, added: Marks) -> str:
    """A text in llguidance's words: its marks that are one token as that token, which no other tokens stand for."""
    parts = re.split("|".join(f"({re.escape(mark)})" for mark in added), text) if added else [text]
    return " ".join(f"<[{added[part]}]>" if part in added else json.dumps(part) for part in parts if part)


def _pattern(mark: str) -> str:
    """A mark as a regular expression within slashes."""
    return "".join(letter if letter.isalnum() or letter in "_<>" else f"\\x{ord(letter):02x}" for letter in mark)
