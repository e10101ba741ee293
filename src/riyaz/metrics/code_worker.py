"""The process that runs generated code, started by code.py with Python's standard library alone.

It enters namespaces of its own (`namespaces`) and stays as their first process. For each line of JSON it forks a
process without rights, which runs the answer, then the tests, and dies. It answers each line with a line, until stdin
ends. Only the standard library is imported, and of it what generated code mostly asks for, so that a fork has it.

A process cannot be trusted with its own verdict. The word that says "passed" is drawn for each answer and sent, with
the tests, only after the answer's own statements have run; an answer that ends the process, or prints, never says it.
An exit never counts as passed, whatever its status: `unittest.main()` in the tests does not exit (`_run_cases`), and
an exit as their last statement is no exit (`_code_of_tests`).
"""

import ast
import builtins
import gc
import io
import json
import os
import random
import select
import signal
import sys
import time
import types
import unittest
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from riyaz.confined import confine
from riyaz.metrics import namespaces
from riyaz.system import fcntl, resource

MEMORY_MIB = 256
PRINTED = 64 << 10  # bytes that it may print
WHY = 300  # characters of a reason
RAN, END = b"ran\n", b"\n\n"  # that the answer has run, and that a verdict is whole
TALKATIVE = f"prints more than {PRINTED >> 10} kB"
FILES = 64  # file descriptors: modules are imported
# Imported before anything is confined: those in C need libraries that the new root lacks.
EARLY = """array base64 binascii bisect bz2 calendar cmath collections contextlib copy csv ctypes dataclasses datetime
decimal difflib enum fractions functools hashlib heapq html io itertools json locale lzma math numbers operator queue
random re secrets statistics string struct tempfile textwrap threading time traceback types typing unicodedata unittest
uuid zlib _strptime"""
# What a confined process can and cannot do.
TRIAL = """
import decimal, os
assert decimal.Decimal(1) == 1 and set(os.listdir("/")) == {os.__file__.split("/")[1]}
try:
    os.fork()
except PermissionError:
    pass
else:
    raise OSError("can start a process")
"""
# Names by which a program reads its caller, and so the expected values of a test.
SPYING = """_getframe _getframemodulename _current_frames currentframe f_back f_locals f_globals tb_frame gi_frame
cr_frame ag_frame settrace setprofile addaudithook get_objects get_referrers get_referents"""
PROGRAM: Any = unittest.TestProgram  # which is also unittest.main
READ_ARGUMENTS = unittest.TestProgram.parseArgs  # as no answer has changed it


def passes(request: dict[str, Any], program: bytes, alone: bool) -> dict[str, object]:
    """Runs the first text of the request's answer that compiles, with what stands `before` it above and its tests below
    it, in a process of its own. `passed`: the last statement of the tests was reached; `runs`: that of the answer;
    `why` not passed, in one line."""
    tests = request.pop("tests").encode("utf-8", "surrogatepass")
    report, to_report = os.pipe()
    printed, to_print = os.pipe()
    inbox, outbox = os.pipe()
    child = os.fork()
    if child == 0:
        del tests
        _attempt(request, program, to_report, to_print, inbox)
    for each in (to_report, to_print, inbox):
        os.close(each)
    word = os.urandom(16).hex().encode()  # drawn behind the fork, which has no copy of it
    said, why = _listen(report, printed, outbox, word + b"\n" + tests, request["wall_seconds"])
    with suppress(OSError):
        os.kill(-1 if alone else child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    with suppress(ChildProcessError):
        while alone:
            os.waitpid(-1, 0)
    for each in (report, printed):
        os.close(each)
    ran = said.startswith(RAN)
    last = said.removeprefix(RAN)
    if ran and last == word and not why:
        return {"passed": True, "runs": True, "why": ""}
    if not why and last.startswith(b"!"):
        why = last[1:].decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(status)
    if not why and (code == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime > request["cpu_seconds"]):
        why = f"takes more than {request['cpu_seconds']} s of CPU time"
    why = why or _ending(code)
    return {"passed": False, "runs": ran, "why": why[:WHY]}


def _listen(report: int, printed: int, outbox: int, mail: bytes, seconds: float) -> tuple[bytes, str]:
    """What a process says until it ends, and the limit that it exceeded. It gets `mail` when it says that the answer
    has run; the outbox is closed behind it."""
    said, left_to_print, deadline = b"", PRINTED, time.monotonic() + seconds
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(printed, select.POLLIN)
    for each in (printed, outbox):
        os.set_blocking(each, False)
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {place for place, _event in poll.poll(1000 * left)}
            if printed in ready and (left_to_print := left_to_print - _read(poll, printed)) < 0:
                return said, TALKATIVE
            if outbox in ready and not (mail := mail[_sent(outbox, mail) :]):
                poll.unregister(outbox)
                os.close(outbox)
                outbox = -1
            if report in ready:
                waiting, piece = not said.startswith(RAN), os.read(report, 1 << 12)
                said += piece
                if not piece or said.endswith(END) or len(said) > 8 * WHY:
                    return said.removesuffix(END), TALKATIVE if left_to_print < _read(poll, printed) else ""
                if waiting and said.startswith(RAN):
                    poll.register(outbox, select.POLLOUT)
        return said, f"takes more than {seconds:g} s"
    finally:
        if outbox >= 0:
            os.close(outbox)


def _read(poll: "select.poll", printed: int) -> int:
    """How many bytes a process has printed since the last time."""
    try:
        size = len(os.read(printed, 2 * PRINTED))
    except BlockingIOError:
        return 0
    if not size:  # its end: nothing more comes
        with suppress(KeyError):
            poll.unregister(printed)
    return size


def _sent(outbox: int, mail: bytes) -> int:
    """How many bytes of the mail were taken; all of them by a process that reads no more."""
    try:
        return os.write(outbox, mail)
    except BlockingIOError:
        return 0
    except OSError:
        return len(mail)


def _ending(code: int) -> str:
    """Why a process with this exit code ended without a verdict; one that closes its pipe is killed by us."""
    by_signal = code < 0 and code != -signal.SIGKILL
    return f"ends its process by signal {-code}" if by_signal else "ends its process before the tests end"


def _attempt(request: dict[str, Any], program: bytes, report: int, printed: int, inbox: int) -> NoReturn:
    """Runs the answer, then the tests; the process ends here, whatever they do."""
    # bound before the answer runs, which may replace what these modules and `builtins` hold
    read, write, end, build, run = os.read, os.write, os._exit, compile, exec
    names, describe, clear = dict(vars(builtins)), _described, (sys.settrace, sys.setprofile)
    try:
        _shut(report, printed, inbox)
        report, inbox = 3, 4
        module = types.ModuleType("answer")
        sys.modules["answer"] = sys.modules["__main__"] = module  # where unittest.main() looks for cases
        _confine(program, request["cpu_seconds"])
        run(build(request["before"], "<tests>", "exec"), module.__dict__)
        run(_compiled(request["answer"]), module.__dict__)
        for each in clear:
            each(None)
        builtins.__dict__.clear()
        builtins.__dict__.update(names)
        write(report, RAN)
        mail = b""
        while piece := read(inbox, 1 << 16):
            mail += piece
        word, _, tests = mail.partition(b"\n")
        _replace_unittest_main()
        module.__dict__["__name__"] = "__main__"
        run(_code_of_tests(tests.decode("utf-8", "surrogatepass")), module.__dict__)
        write(report, word + END)
    except BaseException as error:
        write(report, b"!" + describe(error) + END)
    finally:
        end(0)


def _shut(report: int, printed: int, inbox: int) -> None:
    """Leaves this process nothing but an empty stdin, the pipe it prints to, and its two pipes as 3 and 4."""
    empty, closed = os.pipe()
    os.close(closed)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, FILES) for each in (empty, printed, printed, report, inbox)]
    for place, each in enumerate(high):
        os.dup2(each, place)
    os.closerange(len(high), 2 * FILES)


def _confine(program: bytes, cpu_seconds: int) -> None:
    """The limits of this process, and what is left of riyaz and of the way to the C library in it."""
    random.seed(0)
    sys.dont_write_bytecode = True
    os.environ.clear()
    confine(MEMORY_MIB, FILES)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # no signal handler stops the second
    if program:
        namespaces.forbid_calls(program)
    for name in [name for name in sys.modules if name.split(".")[0] == "riyaz"]:
        del sys.modules[name]
    sys.modules["ctypes"] = sys.modules["_ctypes"] = None  # type: ignore[assignment]
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), errors="replace")


def _compiled(answer: list[str]) -> types.CodeType:
    """The first text that compiles. Raises what the first one raises if none does, and PermissionError for one that
    would read its caller."""
    reason: Exception | None = None
    for text in answer:
        try:
            code = compile(text, "<answer>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = reason or error
        else:
            if name := _spying(code):
                raise PermissionError(f"reads its caller by {name}")
            return code
    raise reason or SyntaxError("no code")


def _spying(code: types.CodeType) -> str:
    """A name in the code by which it would read its caller; empty if there is none."""
    used = set(code.co_names) | {value for value in code.co_consts if isinstance(value, str)}
    inner = [value for value in code.co_consts if isinstance(value, types.CodeType)]
    return next(iter(sorted(used.intersection(SPYING.split()))), "") or next(filter(None, map(_spying, inner)), "")


class _Cases(unittest.TestResult):
    """What becomes of unittest's cases: how many passed, and the exception of the first that did not, which stops
    them. A case that an exception skips or stops is in neither."""

    passed, wrong = 0, None

    def addSuccess(self, test: object) -> None:
        """Counts a case."""
        self.passed += 1

    def addExpectedFailure(self, test: object, error: Any) -> None:
        """Counts a case."""
        self.passed += 1

    def addFailure(self, test: object, error: Any) -> None:
        """Keeps the exception, which may be the answer's, and stops behind this case."""
        if self.wrong is None:
            self.wrong = error[1]
        self.stop()

    def addError(self, test: object, error: Any) -> None:
        """The same for one that is no AssertionError."""
        self.addFailure(test, error)

    def addSubTest(self, test: object, subtest: object, error: Any) -> None:
        """Keeps the exception of a part of a case, if there is one."""
        if error is not None:
            self.addFailure(test, error)


def _run_cases(program: Any) -> None:
    """Runs what `unittest.main()` has collected, without its exit. Raises what the first wrong case raised, and
    AssertionError where there is no case or one did not pass."""
    cases = program.test.countTestCases()
    result = program.result = _Cases()
    program.test.run(result)
    if result.wrong is not None:
        raise result.wrong
    if not cases or result.passed != cases:
        raise AssertionError(f"{result.passed} of {cases} unittest cases pass")


def _replace_unittest_main() -> None:
    """Makes `unittest.main()`, by whichever name, read no arguments and run the cases with `_run_cases`."""
    PROGRAM.parseArgs = lambda program, arguments: READ_ARGUMENTS(program, arguments[:1])
    PROGRAM.runTests = _run_cases
    unittest.main = unittest.TestProgram = PROGRAM  # type: ignore[misc]
    unittest.case._ShouldStop = ()  # type: ignore[attr-defined]  # an exception that ends a case as if it had passed


def _code_of_tests(tests: str) -> types.CodeType:
    """The code of tests, in which an exit as their last statement only wants its status to be 0 or None."""
    if "exit" not in tests.lower():
        return compile(tests, "<tests>", "exec", dont_inherit=True)
    tree: Any = compile(tests, "<tests>", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    _replace_last_exit(tree.body)
    return compile(tree, "<tests>", "exec", dont_inherit=True)


def _replace_last_exit(statements: list[ast.stmt]) -> None:
    """Puts an assertion in the place of an exit as the last of these statements, or of a branch of that."""
    if not statements:
        return
    match last := statements[-1]:
        case ast.If():
            _replace_last_exit(last.body)
            _replace_last_exit(last.orelse)
            return
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("sys"), "exit"), status, [])):
            pass
        case ast.Raise(ast.Call(ast.Name("SystemExit"), status, []), None):
            pass
        case ast.Raise(ast.Name("SystemExit"), None):
            status = []
        case _:
            return
    if len(status) < 2 and not any(isinstance(each, ast.Starred) for each in status):
        good = ast.Tuple([ast.Constant(None), ast.Constant(0)], ast.Load())
        is_good = ast.Compare(status[0] if status else ast.Constant(None), [ast.In()], [good])
        assertion = ast.Assert(is_good, ast.Constant("the tests exit with another status than 0"))
        statements[-1] = ast.fix_missing_locations(ast.copy_location(assertion, last))


def _described(error: BaseException) -> bytes:
    """Type and text of an exception; what writes its text may be the answer's."""
    try:
        text = f"{type(error).__name__[:60]}: {str(error)[:200]}"
    except BaseException:
        text = "an exception without a text"
    return " ".join(text.split()).encode("utf-8", "replace")[:WHY]


def main(alone: bool) -> None:
    """Answers requests until stdin ends; `alone`: in namespaces, and refused where there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folders = [folder for folder in sys.path if os.path.isdir(folder)]
    for name in EARLY.split():
        with suppress(ImportError):
            import_module(name)
    program = namespaces.filter_of_calls()
    try:
        if alone:
            namespaces.enter(list(_outer(folders)))
            if os.fork():
                _wait()
            namespaces.no_privileges()
    except (namespaces.Missing, OSError) as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return
    gc.freeze()
    trial_request = {"before": "", "answer": [TRIAL], "tests": "", "cpu_seconds": 5, "wall_seconds": 20.0}
    trial = passes(trial_request, program, alone)
    if alone and not trial["passed"]:
        print(json.dumps({"refused": f"a harmless trial {trial['why']}"}), flush=True)
        return
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        del line  # a fork need not hold the tests
        print(json.dumps(passes(request, program, alone)), flush=True)


def _outer(folders: list[str]) -> Iterator[str]:
    """The folders that stand in none of the others."""
    for folder in folders:
        if not any(folder.startswith(other + os.sep) for other in folders):
            yield folder


def _wait() -> NoReturn:
    """Waits, outside the namespace of processes, for its first one."""
    os.closerange(0, 3)
    os.wait()
    os._exit(0)
