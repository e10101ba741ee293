"""Renders chat templates in a process of its own: `python -m riyaz.template_worker`.

A chat template is a program that came with a model. It runs here in jinja2's immutable sandbox, and this
process gives up new files, new processes and most memory before it reads the first request. One JSON request
per line on stdin, one JSON answer per line on stdout: {"texts": [...]} or {"error": ..., "conversation": n};
it ends with its input. Only the standard library and jinja2 are imported, to start in a tenth of a second.
"""

import codecs
import json
import math
import pprint
import signal
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

try:
    import resource
except ImportError:  # Windows has no limits to set; the time limit of template.py still holds there
    resource = None  # type: ignore[assignment]

MEMORY_MIB = 1024
# What jinja2 would import on first use, when no file can be opened any more.
LOADED_EARLY = (jinja2.constants, jinja2.debug, pprint, textwrap, codecs.lookup("unicode-escape"))


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` around the assistant's words, which are rendered as they are."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads a class attribute)

    def parse(self, parser: Parser) -> nodes.Node:
        """The body in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class PlainNamespace(Namespace):
    """jinja2's `namespace()` without names that begin with an underscore, as Python's own do."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class PlainDict:
    """`dict(...)` and `dict.fromkeys(...)` without the type, whose methods get round the sandbox."""

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
    # jinja2's own filter escapes HTML; chat templates expect plain JSON
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox with the names that chat templates are written against (those transformers gives them)."""
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
    """The answer to one request; whatever the template does wrong becomes one line of text."""
    number, room = None, request["output_limit"]
    texts: list[str] = []
    try:
        template = compile_template(request["template"])
        for messages in request["conversations"]:
            number = len(texts)
            names = {"tools": None, "documents": None, **request["variables"], "messages": messages}
            pieces = []
            for piece in template.generate(names, add_generation_prompt=request["add_generation_prompt"]):
                room -= len(piece)
                if room < 0:
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


def confine() -> None:
    """Take from this process what rendering does not need: memory, files, processes, Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if resource is None:
        return
    time.localtime()  # reads the time zone while files can still be opened
    limits = {"AS": MEMORY_MIB << 20, "NOFILE": 3, "FSIZE": 0, "NPROC": 0, "CORE": 0}
    for name, value in limits.items():
        if hasattr(resource, f"RLIMIT_{name}"):
            try:
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
            except (
                ValueError,
                OSError,
            ):  # a stricter limit is already there, or this system does not know it
                continue


def _limit_cpu(seconds: float) -> None:
    # the system ends a loop, whatever it computes and whether or not the parent still lives
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def main() -> None:
    """Answer requests until stdin ends."""
    compile_template = lru_cache(maxsize=8)(environment().from_string)
    confine()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_cpu(request["cpu_seconds"])
        sys.stdout.write(json.dumps(render(request, compile_template)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
