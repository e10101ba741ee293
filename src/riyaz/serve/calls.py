"""Calls of tools that a request offers, and those of earlier turns; `riyaz.text.calls` finds calls in answers.

Without tools nothing is looked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riyaz.serve.problems import Problem
from riyaz.text.calls import TAGGED, Calls, answer_form


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
        form = answer_form(template) or (TAGGED if self.must else None)
        if form is None or not self.callable:
            return None
        names = {tool["function"]["name"] for tool in self.callable}
        return Calls(names, form, self.single or self.named, "stop" if self.named else "tool_calls")


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
