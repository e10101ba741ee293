"""Calls of tools: the forms in which models write them, the calls in an answer's text, and turns with calls as text.

A model is taught one form, and its chat template shows it; FORMS is the table of them. `Calls` finds calls of that form
in an answer while it comes. Rows hold calls as text in one form, TAGGED, whatever the model: `turn_text` writes it and
`turn_of` reads it.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

Turn = dict[str, Any]  # {"role", "content", maybe "tool_calls" or, of the first turn, "tools"}
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


def takes_tools(template: str) -> bool:
    """Whether a chat template writes definitions of tools."""
    return re.search(r"\btools\b", template) is not None


def answer_form(template: str) -> Form | None:
    """The form of the calls in answers to rows with tools, which are text where the template takes none; None where it
    shows none that is known."""
    return form_of(template) or (None if takes_tools(template) else TAGGED)


class Calls:
    """Splits an answer into its text and its calls, while it comes. What is no call of a tool in `names` stays text;
    without them any name counts. Where calls are `single`, the first one ends the answer (`over`); `finish` is the
    reason of the end of an answer with calls."""

    def __init__(
        self, names: Collection[str] | None, form: Form = TAGGED, single: bool = False, finish: str = "tool_calls"
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
        if not isinstance(name, str) or (self._names is not None and name not in self._names):
            return None
        arguments = call.get("arguments", call.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        arguments = arguments.encode(errors="replace").decode()  # half of a pair of surrogates is no character
        import secrets  # loads OpenSSL, which a process that only generates need not hold

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


def turn_text(turn: Mapping[str, Any]) -> str:
    """A turn as text: its content, then its calls in the form TAGGED, each on lines of its own."""
    calls = [_call_text(call["function"]) for call in turn.get("tool_calls", ())]
    return "\n".join(part for part in (turn["content"], *calls) if part)


def turn_of(text: str, form: Form = TAGGED) -> Turn:
    """The assistant's turn that a text with calls in a form stands for, as `turn_text` writes it in TAGGED. Its calls
    are numbered, in letters and digits."""
    content, calls = calls_in(text, form)
    made = [{**call, "id": f"call{number:05}"} for number, call in enumerate(calls, start=1)]
    for call in made:
        call["function"] = {**call["function"], "arguments": _object(call["function"]["arguments"])}
    return {"role": "assistant", "content": content if made else text} | ({"tool_calls": made} if made else {})


def calls_in(text: str, form: Form = TAGGED) -> tuple[str, list[dict[str, Any]]]:
    """(the text without its calls, its calls as OpenAI writes them) of a whole answer."""
    content, calls = Calls(None, form).push(text, last=True)
    return content.strip(), calls


def canonical(text: str, form: Form) -> str:
    """An answer with calls in a model's form as `turn_text` writes it; another one unchanged."""
    turn = turn_of(text, form)
    return turn_text(turn) if "tool_calls" in turn else text


def definitions_text(tools: Sequence[Any]) -> str:
    """Definitions of tools as text, for a chat template that writes none."""
    return tagged("tools", "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))


def tagged(tag: str, value: object) -> str:
    """A value between its tags; JSON unless it is text."""
    return f"<{tag}>\n{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}\n</{tag}>"


def has_tools(turns: Sequence[Turn]) -> bool:
    """Whether a conversation holds definitions, calls or results of tools."""
    return any(turn.get("tools") or turn.get("tool_calls") or turn.get("role") == "tool" for turn in turns)


def without_definitions(turns: Sequence[Turn]) -> list[Turn]:
    """A conversation without definitions of tools, and without the system turn if it holds nothing else."""
    first = {name: value for name, value in turns[0].items() if name != "tools"}
    return [*turns[1:]] if first["role"] == "system" and not first["content"] else [first, *turns[1:]]


def without_tools(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]] = ()) -> list[Turn]:
    """A conversation in which tools, its own or else `tools`, are text, for a chat template that writes none:
    definitions in the system turn, a call in the assistant's turn, results that follow each other in one user turn."""
    plain: list[Turn] = []
    if tools and not turns[0].get("tools"):
        begins = turns[0]["role"] == "system"
        turns = [{"role": "system", "content": turns[0]["content"] if begins else "", "tools": tools}, *turns[begins:]]
    before = ""
    for turn in turns:
        text = tagged("tool_response", turn["content"]) if turn["role"] == "tool" else turn_text(turn)
        if turn.get("tools"):
            text = "\n\n".join(part for part in (text, definitions_text(turn["tools"])) if part)
        if turn["role"] == before == "tool":
            plain[-1]["content"] += f"\n{text}"
        else:
            plain.append({"role": "user" if turn["role"] == "tool" else turn["role"], "content": text})
        before = turn["role"]
    return plain


def _call_text(function: Mapping[str, Any]) -> str:
    return tagged("tool_call", {"name": function["name"], "arguments": function.get("arguments", {})})


def _object(arguments: str) -> Any:
    """The arguments of a call as JSON; as they are where they are none."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
