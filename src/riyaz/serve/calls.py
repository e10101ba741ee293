"""Calls of tools in an answer's text: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as models of the Qwen and
SmolLM kind are trained to write them; and calls of earlier turns for the chat template."""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from riyaz.serve.problems import Problem

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Calls:
    """Splits an answer into its text and its calls, while it comes. What is no call of a known tool stays text."""

    def __init__(self, names: Collection[str]) -> None:
        self.count = 0  # calls so far
        self._names = names
        self._held = ""  # may be the beginning of a call

    def push(self, text: str, last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """(the text that is certainly no part of a call, the calls that are whole) after a piece of the answer, the
        `last` one with all that is held."""
        self._held += text
        ready, calls = "", []
        while (start := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, start)
            if end < 0 and not last:
                break
            inner = self._held[start + len(OPEN) : end if end >= 0 else None]
            after = self._held[end + len(CLOSE) :] if end >= 0 else ""
            call = self._call(inner)
            if call is None:
                ready += self._held[: len(self._held) - len(after)]
            else:
                ready += self._held[:start].rstrip()
                calls.append(call)
            self._held = after
        if last:
            ready += "" if self.count and not self._held.strip() else self._held
            self._held = ""
        elif start < 0:
            cut = len(self._held) - _held_back(self._held)
            ready, self._held = ready + self._held[:cut], self._held[cut:]
        return ready, calls

    def _call(self, text: str) -> dict[str, Any] | None:
        """A call as OpenAI writes it; None for what is none."""
        try:
            call = json.loads(text)
        except (ValueError, RecursionError):
            return None
        name = call.get("name") if isinstance(call, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        arguments = call.get("arguments", call.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        arguments = arguments.encode(errors="replace").decode()  # half of a pair of surrogates is no character
        self.count += 1
        return {
            "id": f"call_{secrets.token_hex(12)}", "type": "function",
            "function": {"name": name, "arguments": arguments},
        }  # fmt: skip


def _held_back(text: str) -> int:
    """Number of last characters that may belong to a call: white space before it, and the beginning of its mark."""
    size = next((n for n in range(min(len(OPEN) - 1, len(text)), 0, -1) if OPEN.startswith(text[-n:])), 0)
    before = text[: len(text) - size]
    return size + len(before) - len(before.rstrip())


def writes_calls(template: str) -> bool:
    """Whether a model with this chat template is taught to write calls in this form."""
    return OPEN in template


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
        made.append({"type": "function", "function": {"name": name, "arguments": arguments}})
    return made
