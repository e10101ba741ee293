"""A script's command line in the process of the tests, which has torch loaded already."""

import io
import runpy
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock


def run_here(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """In place of `subprocess.run(command, …)`: the script that Python is started with, with its words and its
    folder's modules; what it prints, and status 0. A script that fails raises what it raises."""
    python, script, *words = map(str, command)
    assert python == sys.executable and script.endswith(".py"), command
    out = io.StringIO()
    path = [str(Path(script).parent), *sys.path]
    with mock.patch.object(sys, "argv", [script, *words]), mock.patch.object(sys, "path", path), redirect_stdout(out):
        runpy.run_path(script, run_name="__main__")
    return subprocess.CompletedProcess(command, 0, out.getvalue(), "")
