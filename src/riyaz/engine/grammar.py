"""Answers that keep to a syntax, token by token, by the package llguidance (the extra `json`): a JSON schema, or rules
in llguidance's own words. Without the package they are refused."""

import json
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from riyaz.data.schema import GUIDANCE
from riyaz.errors import RiyazError
from riyaz.extras import install
from riyaz.text.tokenizer import Tokenizer

# Between the parts of JSON: nothing, a space, or a new line with its indent. With any white space, as JSON has it, a
# model may write blanks until its tokens are used up.
BLANKS = {"whitespace_pattern": r" |\n[ \t]{0,16}"}
# Else what the rules leave no choice of has one writing in tokens, and `allowed` says less than `fits`.
FREELY = {"no_forcing": True}
SAID = 200  # characters of llguidance's message that are shown


class Unfollowable(RiyazError):
    """Rules that lead nowhere, or to too much work; `where` is the field or option that asked for them."""


class Grammar:
    """What an answer must be, over the tokens of a model; compiled once, for any number of requests.

    `where` is the field or option that asked for it. Raises Unfollowable, and RiyazError without llguidance.
    """

    def __init__(self, tokenizer: Tokenizer, rules: str, vocab_size: int, where: str) -> None:
        expect_package(where)
        self.size, self.end, self.where = vocab_size, tokenizer.end_of_turn, where
        self._table, self._rules = _table(tokenizer, vocab_size), rules
        self._first = self._compiled()

    def start(self) -> "Parse":
        """A new answer, before its first token."""
        return Parse(self, self._first.deep_copy())  # copies share what was computed of the rules

    def renew(self) -> None:
        """Forget what the answers so far computed together: it can exceed llguidance's limits."""
        self._first = self._compiled()

    def _compiled(self) -> Any:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._table, self._rules, log_level=0)
        if error := matcher.get_error():
            raise Unfollowable(f"the schema cannot be followed: {_said(error)}", self.where)
        return matcher


class Parse:
    """One answer under a grammar, as far as it is written."""

    def __init__(self, grammar: Grammar, matcher: Any) -> None:
        self._grammar, self._matcher = grammar, matcher

    def fits(self, token: int) -> bool:
        """Whether one token may come next, as `allowed` says of it, in a fraction of the time."""
        if self._matcher.is_stopped():  # complete, where llguidance validates no token, but allows the end
            return token == self._grammar.end
        return bool(self._matcher.validate_tokens([token]))

    def allowed(self) -> np.ndarray:
        """Whether each token may come next, (V,) bool; only end tokens after the end. Raises Unfollowable."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(1, self._grammar.size)
        fill_next_token_bitmask(self._matcher, bits, 0)
        self._expect_sound()
        mask: np.ndarray = np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._grammar.size].view(bool)
        return mask

    def accept(self, token: int) -> None:
        """Go on with a token that fits. Raises Unfollowable."""
        if not (token == self._grammar.end and self._matcher.is_stopped()):
            self._matcher.consume_token(token)
        self._expect_sound()

    def _expect_sound(self) -> None:
        if error := self._matcher.get_error():
            self._grammar.renew()
            raise Unfollowable(f"the schema cannot be followed: {_said(error)}", self._grammar.where)


@lru_cache(maxsize=8)
def schema_rules(schema: str) -> str:
    """The text of a JSON schema, an object, in llguidance's words."""
    document = json.loads(schema)
    return f"%llguidance {json.dumps(FREELY)}\nstart: %json {json.dumps({GUIDANCE: BLANKS} | document)}\n"


@lru_cache(maxsize=8)
def schema_grammar(tokenizer: Tokenizer, schema: str, vocab_size: int, where: str) -> Grammar:
    """The grammar of a JSON schema's text, which all that ask for it share. Raises as `Grammar` does."""
    return Grammar(tokenizer, schema_rules(schema), vocab_size, where)


def expect_package(where: str) -> None:
    """Raises RiyazError without llguidance."""
    if find_spec("llguidance") is None:
        raise RiyazError("answers that keep to a JSON schema need llguidance", where, install("json"))


def expect_schema(schema: str, where: str) -> None:
    """Raises RiyazError for a schema that no answer can be made by, before a model is opened."""
    _of_bytes(schema_rules(schema), where)


def misfit(schema: str, answer: str, where: str) -> str:
    """In which way a text is not what a model could write under the schema; "" if it is. Raises as `expect_schema`."""
    data = answer.strip().encode("utf-8", "replace")
    read, whole = misfit_of(schema_rules(schema), answer.strip(), where)
    if whole or read == len(data):
        return "" if whole else "it ends before its JSON is complete"
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return "it is no JSON"
    before = ascii(data[:read].decode("utf-8", "replace")[-24:])
    order = "or its fields in another order"
    return f"the schema has something else behind {before}, {order}" if read else "it is JSON of another kind"


def misfit_of(rules: str, answer: str, where: str) -> tuple[int, bool]:
    """(the bytes with which a text keeps to rules, whether it is whole by them). Raises RiyazError for rules that
    cannot be followed, and without llguidance."""
    data = answer.encode("utf-8", "replace")
    matcher = _of_bytes(rules, where).deep_copy()
    read = matcher.try_consume_tokens(list(data))
    return read, read == len(data) and bool(matcher.is_accepting())


def _of_bytes(rules: str, where: str) -> Any:
    """A matcher whose tokens are bytes, so that no model is needed, to be copied. Raises as `Grammar` does."""
    expect_package(where)
    matcher = _matcher_of_bytes(rules)
    if error := matcher.get_error():
        raise Unfollowable(f"the schema cannot be followed: {_said(error)}", where)
    return matcher


@lru_cache(maxsize=64)  # rows can have different tools, and most have the same
def _matcher_of_bytes(rules: str) -> Any:
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), rules, log_level=0)


def _said(error: str) -> str:
    """The first line of llguidance's message."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in error.split("\n")[0][:SAID])


@lru_cache(maxsize=4)
def _table(tokenizer: Tokenizer, vocab_size: int) -> Any:
    """The tokenizer as llguidance has it."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.files.definition, n_vocab=vocab_size, eos_token=tokenizer.end_of_turn)
