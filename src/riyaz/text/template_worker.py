"""The process that renders chat templates: `python -m riyaz.text.template_worker`, started by template.py.

A chat template is a program that comes with a model. It runs in jinja2's immutable sandbox, and before the first
request this process limits itself: no new files, no new processes, little memory. It reads one JSON request per line on
stdin and writes one JSON answer per line to stdout, {"texts": [...]} or {"error": ..., "conversation": n}, until stdin
ends. Only the standard library, jinja2 and `confined` are imported, so that it starts in a tenth of a second.
"""

import codecs
import json
import pprint
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.constants
import jinja2.debug
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from riyaz.confined import confine, limit_cpu

MEMORY_MIB = 1024
# imported now, since jinja2 would import them on first use, when no file can be opened
LOADED_EARLY = (jinja2.constants, jinja2.debug, pprint, textwrap, codecs.lookup("unicode-escape"))


class Generation(Extension):
    """Support for `{% generation %}…{% endgeneration %}`, which marks the assistant's text; the body is rendered."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads a class attribute)

    def parse(self, parser: Parser) -> nodes.Node:
        """Parses the tag and returns its body as a scope."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class PlainNamespace(Namespace):
    """jinja2's `namespace()`, refusing names that begin with an underscore, such as Python's special attributes."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class PlainDict:
    """`dict(...)` and `dict.fromkeys(...)` without exposing the type, whose methods would bypass the sandbox."""

    fromkeys = staticmethod(dict.fromkeys)

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)


def _refuse_private(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"namespace attribute {name!r} begins with an underscore")


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # replaces jinja2's filter, which escapes HTML; chat templates expect plain JSON
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox, with the filters and functions that transformers offers to chat templates."""
    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = _to_json
    sandbox.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": PlainNamespace,
        "dict": PlainDict(),
    }
    return sandbox


def render(request: dict, compile_template: Callable[[str], jinja2.Template]) -> dict:
    """The answer to one request; every failure of the template becomes {"error": one line}."""
    number, remaining = None, request["output_limit"]
    texts: list[str] = []
    try:
        template = compile_template(request["template"])
        for messages in request["conversations"]:
            number = len(texts)
            names = {"tools": request["tools"][number], "documents": None, **request["variables"], "messages": messages}
            pieces = []
            for piece in template.generate(names, add_generation_prompt=request["add_generation_prompt"]):
                remaining -= len(piece)
                if remaining < 0:
                    return {"error": f"writes more than {request['output_limit']} characters"}
                pieces.append(piece)
            texts.append("".join(pieces))
    except Exception as error:
        return {"error": _describe(error), "conversation": number}
    return {"texts": texts}


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"needs more than {MEMORY_MIB} MiB of memory"
    if isinstance(error, TemplateSyntaxError):
        return f"does not parse: line {error.lineno}: {error.message}"
    if isinstance(error, SecurityError):
        return f"does something the sandbox forbids: {error}"
    if type(error) is TemplateError:
        return f"refuses the conversation: {error}"
    return f"fails with {type(error).__name__}: {error}"


def main() -> None:
    """Answers requests until stdin ends."""
    compile_template = lru_cache(maxsize=8)(environment().from_string)
    time.localtime()  # loads the time zone while files can still be opened
    confine(MEMORY_MIB)
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_cpu(request["cpu_seconds"])
        sys.stdout.write(json.dumps(render(request, compile_template)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
