"""The syntax that a request asks of its answer: JSON of a schema for `response_format`, calls of tools for
`tool_choice`, else what the served artifact was made with. Without llguidance both fields are refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from riyaz.config import TOOLS
from riyaz.data.schema import MAX_SCHEMA
from riyaz.engine.grammar import Grammar, schema_rules
from riyaz.engine.tool_grammar import calls_rules, marks_of, strict_rules, text_or_calls_rules
from riyaz.errors import RiyazError
from riyaz.extras import install
from riyaz.serve.asking import Body, expect_shallow
from riyaz.serve.calls import Offer
from riyaz.serve.problems import Problem, problem_of
from riyaz.serve.shelf import Served
from riyaz.text.calls import TAGGED, Form, answer_form, form_of
from riyaz.text.tokenizer import Tokenizer

FORMAT = "response_format"


@dataclass(frozen=True)
class Syntax:
    """What an answer must be, in llguidance's words, and the field `where` the client asks for it."""

    grammar: str
    where: str


def syntax_of(body: Body, offer: Offer, served: Served) -> Syntax | None:
    """What the answer to a chat must be: calls where the client says so, else its `response_format`, else text in which
    calls keep to the schemas of strict tools; None for text of any kind. Raises Problem where it cannot be kept."""
    form = body.get("response_format") or {"type": "text"}
    if offer.must:
        _expect_package("tool_choice")
        return calls_syntax(offer, served.open.tokenizer)
    if form["type"] == "text":
        if own := own_syntax(offer, served):
            return own
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
    return Syntax(schema_rules(json.dumps(schema)), FORMAT)


def new_grammar(syntax: Syntax | None, served: Served, body: Body) -> Grammar | None:
    """What all answers to a request must be: what it asks for, else what the artifact was made for; None for text of
    any kind. Raises Problem for a schema that cannot be followed."""
    base, predictor = served.open, served.predictor
    try:
        if syntax is None:
            return predictor.grammar if predictor.has_model and not body.get("response_format") else None
        return Grammar(base.tokenizer, syntax.grammar, base.lm.runner.vocab_size, syntax.where)
    except RiyazError as error:
        raise problem_of(error) from None


def calls_syntax(offer: Offer, tokenizer: Tokenizer) -> Syntax:
    """An answer that is calls of the offered tools and nothing else, in the form that the model's chat template shows,
    and in Qwen's where it shows none: at least one, only one where the offer says so, and the arguments of each by its
    tool's schema. Any route asks for it with `tool_choice` in the body that it gives to `chat.checked`. Raises
    Problem."""
    form = form_of(tokenizer.template) or TAGGED
    return _of_tools(calls_rules, offer, form, tokenizer, single=offer.single or offer.named)


def strict_syntax(offer: Offer, tokenizer: Tokenizer) -> Syntax | None:
    """An answer of text, in which calls are of the offered tools, by their schemas; None where the mark that opens a
    call is not one token of its own. Raises Problem."""
    form = form_of(tokenizer.template)
    if form is None or form.bare or form.open not in tokenizer.added:
        return None
    return _of_tools(strict_rules, offer, form, tokenizer)


def own_syntax(offer: Offer, served: Served) -> Syntax | None:
    """What the answers of an artifact are that was made with `--schema tools`, text or calls of the offered tools; None
    for another, and where nothing may be called. Raises Problem."""
    predictor = served.predictor
    form = (
        answer_form(served.open.tokenizer.template)
        if predictor.has_model and predictor.answer_schema == TOOLS
        else None
    )
    if form is None or not offer.callable:
        return None
    return _of_tools(text_or_calls_rules, offer, form, served.open.tokenizer, single=offer.single)


def _of_tools(rules: Callable[..., str], offer: Offer, form: Form, tokenizer: Tokenizer, **settings: bool) -> Syntax:
    """The syntax of rules over the tools of an offer. Raises Problem."""
    try:
        return Syntax(rules(offer.tools, offer.callable, form, marks_of(form, tokenizer), **settings), TOOLS)
    except RiyazError as error:
        raise problem_of(error) from None


def _expect_package(where: str) -> None:
    if find_spec("llguidance") is None:
        what = f"{where}: the server needs llguidance for it; {install('json')}"
        raise Problem(400, what, where, "unsupported_parameter")


def _expect_small(schema: str, where: str) -> None:
    if len(schema) > MAX_SCHEMA:
        raise Problem(400, f"{where}: the schema has more than {MAX_SCHEMA:,} characters", where)
