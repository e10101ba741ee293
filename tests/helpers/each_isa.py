"""Code on every instruction set, each in a process of its own, since a process chooses its set once."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# torch and riyaz take seconds to import: that is done once, and each set's process is forked before the C++ engine,
# which makes the choice, is loaded.
PROGRAM = """
import os, sys, traceback
import numpy, pytest, torch, riyaz.train
imports, code, *isas = sys.argv[1:]
exec(imports)
assert "riyaz._native" not in sys.modules
for isa in isas:
    print("isa:", isa, flush=True)
    if (child := os.fork()) == 0:
        os.environ["RIYAZ_ISA"], status = isa, 1
        try:
            exec(code, {"__name__": "on_one_isa"})
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"failed with RIYAZ_ISA={isa}")
"""


def printed_on(isas: Iterable[str], code: str, imports: str = "") -> dict[str, str]:
    """Instruction set -> what the code prints where RIYAZ_ISA names it; fails if it fails on one of them. `imports`:
    statements of what the code imports beside torch."""
    package = Path(__import__("riyaz").__file__).parents[1]
    known = os.environ | {"RIYAZ_NATIVE": "1", "PYTHONPATH": os.pathsep.join([str(package), *sys.path])}
    command = [sys.executable, "-c", PROGRAM, imports, code, *isas]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    _, *parts = done.stdout.split("isa: ")
    return dict(part.split("\n", 1) for part in parts)
