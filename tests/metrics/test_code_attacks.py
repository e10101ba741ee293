"""Generated code that attacks: each ends at a limit or is refused, leaves no process and no file, and never passes.

An attack that is not stopped runs to its end, and so passes its empty tests: that is what the tests below would see.
"""

import os
import re
from pathlib import Path

import pytest
from test_code import CASES, DOUBLE, children_of, refused

from riyaz.metrics import code
from riyaz.metrics.code import Verdict, passes

OTHER = Path(__file__).resolve()  # a file of the user's
# Code can undo what hides ctypes; then it may call any function of the C library, and the kernel refuses most calls.
C = """
import sys, os
for name in ("ctypes", "_ctypes"):
    del sys.modules[name]
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
"""
NO = r"PermissionError|Operation not permitted|Errno 1\b"
NOT_THERE = "FileNotFoundError"
ATTACKS = {
    # processes and threads
    "fork": ("import os\nos.fork()", NO),
    "fork bomb": (
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "CPU time"),
    "daemon": ("import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while 1: pass", NO),
    "thread": ("import threading\nthreading.Thread(target=print).start()", "can't start new thread"),
    "thread bomb": ("import _thread\nwhile True:\n    _thread.start_new_thread(input, ())", "can't start new thread"),
    "shell": ("import os\nassert os.system('true') == 0", f"{NO}|AssertionError"),
    "execve": ("import os\nos.execve('/bin/sh', ['sh'], {})", f"{NO}|{NOT_THERE}"),
    "subprocess": ("import subprocess\nsubprocess.run(['ls'])", f"{NO}|{NOT_THERE}"),
    "pool": ("import multiprocessing\nmultiprocessing.Pool(1)", f"{NO}|ImportError|OSError|{NOT_THERE}"),
    # signals and other processes
    "kill the parent": ("import os\nos.kill(os.getppid(), 9)", NO),
    "kill everything": ("import os\nos.kill(-1, 9)", NO),
    "kill the first process": ("import os\nos.kill(1, 9)", NO),
    "stop the parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)", NO),
    "limits of the first process": ("import resource\nresource.prlimit(1, resource.RLIMIT_CPU, (1, 1))", NO),
    "own limits": ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 99))", f"{NO}|ValueError"),
    "priority": ("import os\nos.nice(5)", NO),
    "affinity": ("import os\nos.sched_setaffinity(0, {0})", NO),
    # network
    "inet": ("import socket\nsocket.socket()", NO),
    "inet6": ("import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", NO),
    "unix": ("import socket\nsocket.socket(socket.AF_UNIX)", NO),
    "abstract": ("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0/tmp/.X11-unix/X0')", NO),
    "netlink": ("import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", NO),
    "raw": ("import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)", NO),
    "name": (
        "import socket\nsocket.getaddrinfo('localhost', 80)\nsocket.create_connection(('127.0.0.1', 80))",
        f"{NO}|gai"),
    # files
    "passwd": ("open('/etc/passwd').read()", NOT_THERE),
    "environ of the parent": ("open('/proc/1/environ').read()", NOT_THERE),
    "memory": ("open('/proc/self/mem', 'r+b')", f"{NO}|{NOT_THERE}"),
    "home": ("import os\nassert os.listdir(os.path.expanduser('~'))", f"{NOT_THERE}|AssertionError|PermissionError"),
    "a file of the user": (f"open({str(OTHER)!r}).read()", NOT_THERE),
    "installed packages": (
        "import os\nd = os.path.dirname(os.__file__)\nassert os.listdir(d + '/site-packages')",
        "Error"),
    "device": ("open('/dev/zero').read(10)", NOT_THERE),
    "write": ("open('/x', 'w')", NO),
    "write where it is": ("open('x', 'w').write('x')", NO),
    "append to a module": ("import os\nopen(os.__file__, 'a').write('#')", NO),
    "truncate a module": ("import os\nos.truncate(os.__file__, 0)", NO),
    "remove a module": ("import os\nos.remove(os.__file__)", NO),
    "rename a module": ("import os\nos.rename(os.__file__, os.__file__ + '2')", NO),
    "symbolic link": ("import os\nos.symlink('/etc/passwd', 'x')\nopen('x')", NO),
    "hard link": ("import os\nos.link(os.__file__, 'x')", NO),
    "folder": ("import os\nos.mkdir('x')", NO),
    "mode": ("import os\nos.chmod(os.__file__, 0o777)", NO),
    "temporary file": ("import tempfile\ntempfile.TemporaryFile()", f"{NOT_THERE}|{NO}"),
    "out of the root": ("import os\nos.chdir('../../../..')\nopen('etc/passwd')", f"{NOT_THERE}|{NO}"),
    "chroot": ("import os\nos.chroot('.')", NO),
    "memory file": ("import os\nos.memfd_create('x')", NO),
    # the kernel by the C library
    "ctypes": ("import ctypes", "ModuleNotFoundError|ImportError"),
    "ptrace": (C + "call('ptrace', 16, 1, 0, 0)", NO),
    "mount": (C + "call('mount', b'none', b'/', b'tmpfs', 0, None)", NO),
    "unshare": (C + "call('unshare', 0x10000000)", NO),
    "setns": (C + "call('setns', 3, 0)", NO),
    "memory of others": (C + "call('process_vm_readv', 1, None, 0, None, 0, 0)", NO),
    "rights back": (C + "call('setuid', 0)", NO),
    "filter off": (C + "call('prctl', 22, 0, 0, 0, 0)", NO),
    "bpf": (C + "call('syscall', 321, 0, 0, 0)", NO),
    "io_uring": (C + "call('syscall', 425, 8, ctypes.create_string_buffer(256))", NO),
    "keys": (C + "call('syscall', 250, 0, -3, 1)", NO),
    "userfaultfd": (C + "call('syscall', 323, 0)", NO),
    "other numbers": (C + "call('syscall', 0x40000000 + 57)", NO),  # x32's fork
    "shared memory": (C + "call('shmget', 0, 4096, 0o1600)", NO),
    "raw write": (C + "call('open', b'/x', 0o101, 0o600)", NO),
    # memory, time and output
    "10 GB": ("x = bytearray(10 << 30)", "MemoryError"),
    "list that doubles": ("x = [0]\nwhile True:\n    x += x", "MemoryError"),
    "map": ("import mmap\nmmap.mmap(-1, 1 << 30)", "Cannot allocate|Errno 12"),
    "zip bomb": (
        "import zlib\nz = zlib.compress(bytes(1 << 26))\nx = [zlib.decompress(z) for _ in range(64)]",
        "MemoryError|CPU time"),
    "files": ("import os\nwhile True:\n    os.dup(1)", "Too many open files"),
    "pipes": ("import os\nwhile True:\n    os.pipe()", f"{NO}|Too many"),
    "loop": ("while True:\n    pass", "CPU time"),
    "loop without a signal": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
        "CPU|nal 9"),
    "sleep": ("import time\ntime.sleep(1000)", "takes more than 1 s"),
    "wait for input": ("input()", "EOFError"),
    "power": ("9 ** 9 ** 9", "CPU time|MemoryError|takes more"),
    "regular expression": ("import re\nre.match('(a*)*b', 'a' * 40)", "CPU time|takes more"),
    "output": ("while True:\n    print('x' * 1000)", "prints more than 64 kB"),
    "output of C": ("import os\nwhile True:\n    os.write(2, b'x' * 60000)", "prints more than 64 kB"),
    "recursion": ("def f(): return f()\nf()", "RecursionError"),
    "stack": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\nf = lambda x: [f] and repr(x) and f([x])\nf(1)",
        "signal 11|CPU|Memory|Recurs"),
    "nested source": ("x = " + "(" * 5000 + ")" * 5000, "SyntaxError|MemoryError|RecursionError"),
    "crash": (C + "ctypes.string_at(0)", "signal 11"),
    # the report
    "long message": ("raise ValueError('x' * 10 ** 7)", "ValueError: x{200}$"),
    "long name": ("raise type('E' * 10 ** 6, (Exception,), {})()", "^E{60}:"),
    "message that fails": ("class E(Exception):\n    def __str__(self): raise self\nraise E", "without a text"),
    "message of lines": ("raise ValueError('a\\nran\\n\\n\\x1b[2J')", r"ValueError: a ran  ?\[2J"),
    "message that loops": (
        "class E(Exception):\n    def __str__(self):\n        while 1: pass\nraise E",
        "CPU time|takes more"),
    "closed pipes": ("import os\nos.closerange(0, 64)", "before the tests end"),
    "noise in the report": ("import os\nos.write(3, b'x' * 100000)", "before the tests end|signal|takes more"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_and_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if refused(ATTACKS[name][0]):
        return
    passes(DOUBLE, "")
    keeper, content = _keeper(), OTHER.read_bytes()
    answer, ends = ATTACKS[name]
    with monkeypatch.context() as limits:
        limits.setattr(code, "CPU_SECONDS", 1)
        if name == "sleep":
            limits.setattr(code, "WALL_SECONDS", 1.0)
        verdict = passes(answer, "")
    assert not verdict.passed and re.search(ends, verdict.why), verdict
    assert len(verdict.why) <= 300 and verdict.why.isprintable()
    assert _keeper() == keeper and not children_of(keeper), "the first process lives, and has no children"
    assert OTHER.read_bytes() == content and os.path.exists(os.__file__)
    assert passes(DOUBLE, "assert double(2) == 4").passed, "the next row is answered"


def _keeper() -> int:
    """The number of the namespace's first process."""
    assert code._confined.pid is not None
    (first,) = children_of(code._confined.pid)
    return first


FAKES = {
    "exit": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "_exit": ("import os\nos._exit(0)", "before the tests end"),
    "atexit": ("import atexit, os\natexit.register(os.write, 3, b'ran')\nraise SystemExit", "SystemExit"),
    "exit in the tests": ("def double(x):\n    raise SystemExit(0)", "SystemExit: 0"),
    "_exit in the tests": ("import os\ndef double(x):\n    os._exit(0)", "before the tests end"),
    "words": ("print('ran\\npassed')\nimport os\nos.write(1, b'ran\\n\\n')\ndef double(x): return 0", "AssertionError"),
    "builtins": (
        "import builtins\nbuiltins.exec = builtins.compile = print\nbuiltins.AssertionError = KeyError\n"
        "def double(x): return 0", "AssertionError"),
    "os": ("import os\nos.write = os.read = os._exit = print\ndef double(x): return 0", "AssertionError"),
    "exception hook": ("import sys\nsys.excepthook = print\ndef double(x): return 0", "AssertionError"),
    "trace": ("import sys\nsys.settrace(lambda *a: None)", "reads its caller by settrace"),
    "frame": (
        "import sys\ndef double(x):\n    return sys._getframe(1).f_code.co_consts[1]", "reads its caller by _getframe"),
    "traceback": (
        "def double(x):\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
        "        return e.__traceback__.tb_frame.f_back.f_code.co_consts[1]", "reads its caller by f_back"),
    "name of a frame": ("import sys\ndouble = getattr(sys, '_getframe')", "reads its caller by _getframe"),
    "memory": ("import gc\ndouble = [x for x in gc.get_objects()]", "reads its caller by get_objects"),
    "inspect": ("import inspect\ndouble = inspect.currentframe", "reads its caller by currentframe"),
    "stopped tests": ("def double(x):\n    raise GeneratorExit", "GeneratorExit"),
    "early word": ("import os\nos.write(3, b'ran\\n' + b'0' * 32 + b'\\n\\n')\nos._exit(0)", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAKES)
def test_a_verdict_is_not_faked(name: str) -> None:
    if not refused(FAKES[name][0]):
        verdict = passes(FAKES[name][0], "assert double(2) == 4")
        assert not verdict.passed and re.search(FAKES[name][1], verdict.why), verdict


ENDS = {
    "exit": "def double(x):\n    raise SystemExit(0)",
    "exit by another name": "import functools, sys\ndouble = functools.partial(sys.exit, 0)",
    "exit without a frame": "import sys\nclass double:\n    def __new__(cls, *a): return next(map(sys.exit, [0]))",
    "nothing of unittest": "import unittest\ndef double(x): unittest.main(module='math')",
    "its own passing case": "import unittest\nclass Own(unittest.TestCase):\n    def test_own(self): pass\n"
    "def double(x): unittest.main(defaultTest='Own')",
    "skip": "import unittest\ndef double(x): raise unittest.SkipTest('later')",
    "stop": "from unittest.case import _ShouldStop\ndef double(x): raise _ShouldStop",
    "interrupt": "def double(x): raise KeyboardInterrupt",
    "arguments": "import sys\nsys.argv[:] = ['x', '-k', 'nothing']\ndef double(x): return 0",
    "another program": "import unittest\nunittest.main = unittest.TestProgram = print\ndef double(x): return 0",
    "another end": "import unittest\nunittest.TestProgram.runTests = print\ndef double(x): return 0",
}
TESTED = {
    "unittest": CASES + "unittest.main()",
    "class": CASES.replace("def test_it(self):\n        ", "@classmethod\n    def setUpClass(cls):\n        cls().")
    .replace("self.assertEqual", "assertEqual") + "    def test_it(self): pass\nunittest.main()",
    "subtest": CASES.replace("self.assert", "with self.subTest(): self.assert") + "unittest.main()",
    "exit": "import sys\nassert double(2) == 4\nsys.exit(0)",
    "status": "import sys\nsys.exit(double(2) != 4)",
    "conditional": "import sys\nif double(2) == 4:\n    sys.exit(0)\nelse:\n    sys.exit(1)",
}  # fmt: skip


@pytest.mark.parametrize("tests", TESTED)
def test_no_answer_ends_the_tests_as_if_they_had_passed(tests: str) -> None:
    assert refused() or passes(DOUBLE, TESTED[tests]) == Verdict(True, True)
    for name, answer in {} if refused() else ENDS.items():
        verdict = passes(answer, TESTED[tests])
        assert not verdict.passed and verdict.runs, (name, verdict)


def test_neither_the_word_nor_the_tests_are_in_memory_while_the_answer_runs() -> None:
    """Seen by names that are made at run time, which no list of names finds."""
    answer = """
import sys
frame, seen = getattr(sys, "_get" + str().join(["frame"]))(), []
while frame:
    seen += map(repr, getattr(frame, "f_loc" + str().join(["als"])).values())
    frame = getattr(frame, "f_b" + str().join(["ack"]))
assert len(seen) > 20 and not any("dou" + str().join(["ble(2)"]) in text for text in seen)
assert not any(len(text) == 35 and text.startswith("b'") for text in seen)
"""
    if not refused(answer):
        assert passes(answer, "assert double(2) == 4").runs


def test_what_one_interpreter_cannot_stop_is_known() -> None:
    """The threat model says so: an answer that is written against this very harness passes."""
    equal = "class Any:\n    def __eq__(self, other): return True\ndef double(x): return Any()"
    told = "import os\nos.write(3, b'ran\\n')\nword = os.read(4, 32)\nos.write(3, word + b'\\n\\n')\nos._exit(0)"
    if not refused():
        assert passes(equal, "assert double(2) == 4") == Verdict(True, True)
        assert passes(told, "assert double(2) == 4") == Verdict(True, True)
