"""`response_format`: answers that are JSON of a schema, by llguidance, token by token; without the package, refused."""

import json
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from riyaz.errors import install
from riyaz.serve.asking import Body, expect_shallow
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.text.tokenizer import Tokenizer

MAX_SCHEMA = 64 * 2**10  # characters
WHERE = "response_format"


class Grammar:
    """The tokens that an answer may go on with; used by one request."""

    def __init__(self, tokenizer: Tokenizer, grammar: str, vocab_size: int) -> None:
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = LLMatcher(_tokens(tokenizer, vocab_size), grammar)
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
            raise Problem(400, f"{WHERE}: the schema cannot be followed: {error.splitlines()[0][:200]}", WHERE)


def grammar_for(body: Body, served: Served) -> str:
    """The grammar of the format that a request asks for, "" for plain text. Raises Problem where it cannot be kept."""
    form = body.get("response_format") or {"type": "text"}
    if form["type"] == "text":
        return ""
    if served.predictor.from_set:
        raise Problem(400, f"{WHERE}: {served.name} chooses or copies its answers", WHERE, "unsupported_parameter")
    if find_spec("llguidance") is None:
        what = f"{WHERE}: the server needs llguidance for it; {install('json')}"
        raise Problem(400, what, WHERE, "unsupported_parameter")
    if form["type"] == "json_schema" and "json_schema" not in form:
        raise Problem(400, f"{WHERE}.json_schema: is missing", f"{WHERE}.json_schema", "missing_required_parameter")
    schema = form["json_schema"]["schema"] if form["type"] == "json_schema" else {"type": "object"}
    _expect_small(schema)
    return _compiled(json.dumps(schema))


def new_grammar(grammar: str, served: Served) -> Grammar | None:
    """The state of one answer; None for plain text. Raises Problem for a schema that cannot be followed."""
    base = served.open
    return Grammar(base.tokenizer, grammar, base.lm.runner.vocab_size) if grammar else None


def _expect_small(schema: Any) -> None:
    expect_shallow(schema, WHERE)
    if len(json.dumps(schema)) > MAX_SCHEMA:
        raise Problem(400, f"{WHERE}: the schema has more than {MAX_SCHEMA:,} characters", WHERE)


@lru_cache(maxsize=64)
def _compiled(schema: str) -> str:
    from llguidance import LLMatcher

    try:
        grammar: str = LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:
        raise Problem(400, f"{WHERE}: {str(error).splitlines()[0][:200]}", WHERE) from None
    return grammar


@lru_cache(maxsize=4)
def _tokens(tokenizer: Tokenizer, vocab_size: int) -> Any:
    """The tokenizer as llguidance has it."""
    from llguidance import LLTokenizer

    return LLTokenizer(tokenizer.files.definition, n_vocab=vocab_size, eos_token=tokenizer.end_of_turn)
