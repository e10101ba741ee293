"""pass@1: generated code is right where it and the tests of its row run to the end, in a process that is confined.

`code_worker` is that process; docs/threat-model.md says what it can do. Where this machine cannot confine it,
the metric is refused before anything starts, unless the user allows to run it with limits alone.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from riyaz.child import Child, Ended
from riyaz.errors import RiyazError

UNSAFE = "RIYAZ_UNSAFE_CODE"  # environment variable: what the user allowed in this command, for its workers
PLACE = "# answer"  # the line of tests above which everything runs before the answer, which may use it
CODE = 200_000  # characters of an answer, and of tests
CPU_SECONDS, WALL_SECONDS = 2, 10.0  # of one answer with its tests; on a busy machine CPU time passes slowly
SPARE = 30.0  # seconds after which the confining process itself is ended
ANSWER = 8192  # bytes of the process's answer
WHERE = "metric pass@1"
# Runs each row's tests behind an empty answer, which they must not pass, and behind its own one, which must.
MANY = """
import sys, types
for before, texts, tests in {rows!r}:
    for answer in ([""], texts):
        module = sys.modules["answer"] = sys.modules["__main__"] = types.ModuleType("answer")
        try:
            exec(before, module.__dict__)
            for text in answer:
                try:
                    code = compile(text, "<answer>", "exec")
                    break
                except SyntaxError:
                    pass
            exec(code, module.__dict__)
            module.__name__ = "__main__"
            exec(tests, module.__dict__)
        except SystemExit:
            raise
        except BaseException:
            assert answer != texts
        else:
            assert answer == texts
"""
# possessive: where a part does not match, no other division of the same characters is tried, which takes quadratic time
_FENCE = re.compile(r"^[ \t]*+(```++|~~~++)[ \t]*+([\w+#.-]*+)[^\n]*+\n(.*?)(?:^[ \t]*+\1[ \t]*+$|\Z)", re.M | re.S)
_DEFINES = re.compile(r"^[ \t]*+(?:async[ \t]++def|def|class)\b", re.M)
_PYTHON = {"", "python", "python3", "py", "py3", "python2", "pycon"}
_CODE_LINE = re.compile(r"(?:async\s+def|def|class|import|from)\b|@\w|[A-Za-z_]\w*\s*(?::[^=\n]+)?=[^=]")


@dataclass(frozen=True)
class Verdict:
    """Of one answer: whether the tests ran to their end, whether its own statements did, and why not, in one line."""

    passed: bool
    runs: bool
    why: str = ""


def passes(answer: str, tests: str) -> Verdict:
    """Runs the code of an answer and then the tests, in a confined process of 2 s of CPU time and 256 MiB; what stands
    above a line `# answer` of the tests runs before the answer. Raises RiyazError where this machine cannot confine it
    and the user did not say that it runs nevertheless."""
    if max(len(answer), len(tests)) > CODE:
        return Verdict(False, False, f"more than {CODE:,} characters of code")
    before, tests = _parts(tests)
    request = {
        "before": before, "answer": texts_of(answer), "tests": tests, "cpu_seconds": CPU_SECONDS,
        "wall_seconds": WALL_SECONDS,
    }  # fmt: skip
    runner = _runner(is_unsafe())
    for _attempt in range(2):  # code cannot end the process that forks for it; if something else did, it runs again
        with suppress(Ended):
            said = runner.ask(request, WALL_SECONDS + SPARE, ANSWER)
            why = "".join(character if character.isprintable() else " " for character in str(said["why"]))
            return Verdict(bool(said["passed"]), bool(said["runs"]), why)
    return Verdict(False, False, "ends the process that runs it")


def judge_rightly(rows: Sequence[tuple[str, str]]) -> bool:
    """Whether the tests of all these (answer, tests) fail for an empty answer and pass for their own, all in one
    process, where they share the limits of one answer. False decides nothing: one alone may do so all the same."""
    parts = [(_parts(tests), texts_of(answer)) for answer, tests in rows]
    return passes("", MANY.format(rows=[(before, texts, behind) for (before, behind), texts in parts])).passed


def _parts(tests: str) -> tuple[str, str]:
    """What of tests runs before the answer, and what behind it."""
    before, mark, behind = f"\n{tests}\n".partition(f"\n{PLACE}\n")
    return (before, behind) if mark else ("", tests)


def require_confinement(unsafe: bool = False) -> None:
    """Makes sure, before anything long begins, that generated code can be run. `unsafe`: with limits alone where it
    cannot be confined, also in the processes that this one starts. Raises RiyazError naming what is missing."""
    os.environ[UNSAFE] = "1" if unsafe else "0"
    _runner(unsafe)


def is_unsafe() -> bool:
    """Whether the user lets generated code run where this machine cannot confine it."""
    return os.environ.get(UNSAFE) == "1"


@cache
def _runner(unsafe: bool) -> Child:
    """The process that runs the code. Raises RiyazError where it cannot be confined and need be."""
    try:
        _confined.start()
    except RiyazError as error:
        if not unsafe:
            hint = "use Linux with user namespaces, or another --metric; --unsafe-code runs the code with limits alone"
            raise RiyazError(f"generated code cannot be confined here: {error.what}", WHERE, hint) from None
    else:
        return _confined
    _limited.start()
    return _limited


def texts_of(answer: str) -> list[str]:
    """What may be the code of an answer, the likeliest first: its fenced blocks of Python that define something, other
    ones, then the text from its first line of code on. A block that is not closed goes on to the end."""
    blocks = [block[3] for block in _FENCE.finditer(answer) if block[2].lower() in _PYTHON]
    defining = [block for block in blocks if _DEFINES.search(block)]
    if blocks:
        return list(dict.fromkeys(defining + blocks))
    lines = answer.splitlines()
    starts = [place for place, line in enumerate(lines) if _CODE_LINE.match(line)][:1]
    return list(
        dict.fromkeys([answer, *("\n".join(lines[place:]) for place in starts), *_without_prose(lines, starts)])
    )


def _without_prose(lines: list[str], starts: list[int]) -> Iterator[str]:
    """The code from its first line to the last one before a paragraph that is indented less and is not code."""
    for start in starts:
        for place in range(start + 1, len(lines)):
            after_gap = not lines[place - 1].strip() and lines[place][:1].isalpha()
            if after_gap and not _CODE_LINE.match(lines[place]):
                yield "\n".join(lines[start:place])
                return


def _command(alone: bool) -> tuple[list[str], dict[str, str]]:
    """Python without site-packages, the user's environment or the working folder; hashes of strings without chance."""
    if os.name != "posix":
        raise RiyazError("this system cannot fork a process")
    place = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {place!r}); from riyaz.metrics import code_worker; del sys.path[0]; "
    code += f"code_worker.main({alone})"
    # not -I: it would leave out PYTHONHASHSEED, the one variable there is
    return [sys.executable, "-P", "-s", "-S", "-c", code], {"PYTHONHASHSEED": "0"}


_confined, _limited = Child(partial(_command, True)), Child(partial(_command, False))
