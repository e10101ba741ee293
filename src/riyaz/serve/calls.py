"""Calls of tools: what a request offers, the forms in which models write calls, and the calls in an answer's text.

A model is taught one form, and its chat template shows it; FORMS is the table of them. `Calls` finds calls of that form
in an answer while it comes, `grammar.py` makes answers that are calls of it. Without tools nothing is looked for.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from riyaz.serve.problems import Problem

HOLE = "…"  # in FORMS: the place of a call in its block, of a name and of arguments in their call
WHITE = " \t\r\n"


@dataclass(frozen=True)
class Form:
    """How a kind of model writes calls: `block` is a call between its marks, `call` its name and its arguments, and
    `joined` stands between two blocks or, where `listed`, between two calls of one block. A `bare` call may begin an
    answer without the mark that opens it elsewhere."""

    shown: tuple[str, ...]  # all of it is in the chat template of a model that writes this form
    open: str
    close: str  # "" where a block ends with its JSON
    block: str
    call: str
    joined: str
    listed: bool = False
    bare: bool = False
    short_ids: bool = False  # Mistral's templates refuse ids that have not 9 letters and digits

    @property
    def marks(self) -> tuple[str, ...]:
        """What may be one token, and a control token, in the model's vocabulary."""
        return tuple(mark for mark in (self.open, self.close, "[ARGS]", "[CALL_ID]") if mark)


NAMED = '{"name": "…", "arguments": …}'
TAGGED = Form(("<tool_call>",), "<tool_call>", "</tool_call>", "<tool_call>\n…\n</tool_call>", NAMED, "\n")
FORMS = (  # the first whose `shown` is in a template is the model's
    TAGGED,  # Qwen, SmolLM
    Form(("[TOOL_CALLS]", "[ARGS]"), "[TOOL_CALLS]", "", "[TOOL_CALLS]…", "…[ARGS]…", "", short_ids=True),
    Form(("[TOOL_CALLS] [",), "[TOOL_CALLS]", "", "[TOOL_CALLS] […]", NAMED, ", ", listed=True, short_ids=True),
    Form(("[TOOL_CALLS]",), "[TOOL_CALLS]", "", "[TOOL_CALLS][…]", NAMED, ", ", listed=True, short_ids=True),
    Form(  # Llama 3
        ('{"name": ', '"parameters": '), "<|python_tag|>", "", "…", '{"name": "…", "parameters": …}', "; ", bare=True
    ),
)
BEFORE_ARGUMENTS = re.compile(r"\s*([^\s\[{]+)(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)")  # Mistral's, since v11


def form_of(template: str) -> Form | None:
    """The form that a model with this chat template is taught to write; None where the template shows none."""
    return next((form for form in FORMS if all(part in template for part in form.shown)), None)


@dataclass(frozen=True)
class Offer:
    """The tools of a request, all of which the prompt describes, and what the answer may do with them: which of them
    it may call (`callable`), whether it is calls and nothing else (`must`), of one tool that the client `named`, and
    of how many (`single`: at most one)."""

    tools: tuple[dict[str, Any], ...] = ()
    callable: tuple[dict[str, Any], ...] = ()
    must: bool = False
    named: bool = False
    single: bool = False

    @property
    def strict(self) -> bool:
        """Whether the client asks that calls keep to the schema of a tool."""
        return any(tool["function"].get("strict") for tool in self.callable)

    def calls(self, template: str) -> "Calls | None":
        """What finds the calls in one answer of a model with this chat template; None where it can have none."""
        form = form_of(template) or (TAGGED if self.must else None)
        if form is None or not self.callable:
            return None
        names = {tool["function"]["name"] for tool in self.callable}
        return Calls(names, form, self.single or self.named, "stop" if self.named else "tool_calls")


class Calls:
    """Splits an answer into its text and its calls, while it comes. What is no call of a known tool stays text. Where
    calls are `single`, the first one ends the answer (`over`); `finish` is the reason of the end of an answer with
    calls."""

    def __init__(
        self, names: Collection[str], form: Form = TAGGED, single: bool = False, finish: str = "tool_calls"
    ) -> None:
        self.form, self.finish = form, finish
        self.count = 0  # calls so far
        self._names, self._single = names, single
        self._held = ""  # may be the beginning of a call
        self._said = False  # text, after which no bare call begins
        self._between = WHITE + ("" if form.listed else form.joined)

    @property
    def over(self) -> bool:
        """Whether the answer has the one call that it may have."""
        return self._single and self.count > 0

    def push(self, text: str, last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """(the text that is certainly no part of a call, the calls that are whole) after a piece of the answer, the
        `last` one with all that is held."""
        self._held = "" if self.over else self._held + text
        ready = ""
        calls: list[dict[str, Any]] = []
        while not self.over and (begin := self._begin()) is not None:
            start, inside = begin
            cut = len(self._held[:start].rstrip())
            ready += self._tell(cut)
            block = self._block(inside - cut, last)
            if block is None:
                return ready, calls
            made, end = block
            ready += "" if made else self._tell(end)
            self._held = self._held[end:] if made else self._held
            calls += made
        if self.over:
            self._held = ""
        elif last:
            ready += "" if self.count and not self._held.strip(self._between) else self._tell(len(self._held))
        else:
            ready += self._tell(len(self._held) - self._held_back())
        return ready, calls

    def _tell(self, count: int) -> str:
        """The first characters that are held, which are text."""
        text, self._held = self._held[:count], self._held[count:]
        self._said = self._said or bool(text.strip())
        return text

    def _begin(self) -> tuple[int, int] | None:
        """(where the next block may begin, where it goes on after its mark)."""
        if self.form.bare and not self._said:
            start = len(self._held) - len(self._held.lstrip(self._between))
            if self._held[start : start + 1] == "{":
                return 0, start
        start = self._held.find(self.form.open)
        return None if start < 0 else (start, start + len(self.form.open))

    def _held_back(self) -> int:
        """Number of last characters that may belong to a call: white space before it, and the beginning of its
        mark."""
        text, mark = self._held, self.form.open
        if self.form.bare and not self._said and not text.strip(self._between):
            return len(text)
        size = next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-n:])), 0)
        before = text[: len(text) - size]
        return size + len(before) - len(before.rstrip())

    def _block(self, inside: int, last: bool) -> tuple[list[dict[str, Any]], int] | None:
        """(its calls, none where it is text, its end); None where more of the answer is needed to know."""
        if self.form.close:
            end = self._closing(inside)
            if end < 0 and not last:
                return None
            value, _ = _decoded(self._held[inside : end if end >= 0 else None], whole=True)
            return self._calls(value), end + len(self.form.close) if end >= 0 else len(self._held)
        value, size = _decoded(self._held[inside:], named=self.form.call.startswith(HOLE))
        if size:
            return self._calls(value), inside + size
        return ([], len(self._held)) if last else None

    def _closing(self, inside: int) -> int:
        """Where the mark that closes a block is, not one within a text of its JSON; negative for none."""
        end = self._held.find(self.form.close, inside)
        while end >= 0 and _in_text(self._held[inside:end]):
            end = self._held.find(self.form.close, end + 1)
        return end

    def _calls(self, value: Any) -> list[dict[str, Any]]:
        """The calls of a block, none unless all are calls."""
        made = [self._call(each) for each in (value if isinstance(value, list) else [value])]
        calls = [call for call in made if call is not None]
        if len(calls) < len(made):
            return []
        calls = calls[:1] if self._single else calls
        self.count += len(calls)
        return calls

    def _call(self, call: Any) -> dict[str, Any] | None:
        """A call as OpenAI writes it; None for what is none."""
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = call.get("arguments", call.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        arguments = arguments.encode(errors="replace").decode()  # half of a pair of surrogates is no character
        number = secrets.token_hex(5)[:9] if self.form.short_ids else f"call_{secrets.token_hex(12)}"
        return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def _decoded(text: str, whole: bool = False, named: bool = False) -> tuple[Any, int]:
    """(the JSON that a text begins with, the number of its characters), (None, 0) for a text that begins with none;
    `whole`: only white space may follow; `named`: with the name before an object it becomes a call."""
    name = BEFORE_ARGUMENTS.match(text) if named else None
    start = name.end() if name else len(text) - len(text.lstrip())
    try:
        value, end = DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0
    if whole and text[end:].strip():
        return None, 0
    return ({"name": name[1], "arguments": value} if name else value), end


def _in_text(beginning: str) -> bool:
    """Whether the beginning of a JSON ends within a text."""
    try:
        DECODER.decode(beginning)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        pass
    return False


def _refuse(constant: str) -> NoReturn:
    """NaN and Infinity are not JSON, and no client could read them."""
    raise ValueError(constant)


DECODER = json.JSONDecoder(parse_constant=_refuse)


def earlier_calls(calls: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """The calls of an assistant's turn as chat templates read them, with arguments as an object. Raises Problem."""
    made = []
    for place, call in enumerate(calls):
        function = call.get("function")
        param = f"{where}.{place}.function"
        if call.get("type", "function") != "function" or not isinstance(function, dict):
            raise Problem(400, f"{param}: is missing", param, "missing_required_parameter")
        name, arguments = function.get("name"), function.get("arguments", {})
        if not isinstance(name, str):
            raise Problem(400, f"{param}.name: is not text", f"{param}.name")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                raise Problem(400, f"{param}.arguments: is not JSON", f"{param}.arguments") from None
        if not isinstance(arguments, dict):
            raise Problem(400, f"{param}.arguments: is no object", f"{param}.arguments")
        named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}  # Mistral's templates write it
        made.append({**named, "type": "function", "function": {"name": name, "arguments": arguments}})
    return made
