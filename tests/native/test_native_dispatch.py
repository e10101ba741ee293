"""riyaz.native: which instruction set the C++ engine takes, and the one line where it cannot be used."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import riyaz
from riyaz import hardware, native

PACKAGE = Path(riyaz.__file__).parent  # `make sanitize` has a copy
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SAY = "from riyaz import native; print(native.available(), native.why_not() or native.isa())"


def python(code: str, path: Path = PACKAGE.parent, **environment: str) -> str:
    """The last line that a fresh Python prints, with riyaz from `path`."""
    known = os.environ | {"PYTHONPATH": str(path)} | environment
    done = subprocess.run([sys.executable, "-c", code], env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout.splitlines()[-1]


def test_the_engine_is_built_and_takes_the_best_instruction_set() -> None:
    assert native.available(), native.why_not()
    assert native.why_not() == ""
    assert native.isas()[0] == "scalar"
    best = [isa for isa in native.isas() if isa != "avx512bf16" or not hardware.cpu_model().startswith("Intel")][-1]
    assert python(SAY, RIYAZ_ISA="") == f"True {best}"


def test_each_instruction_set_of_this_cpu_can_be_forced() -> None:
    for isa in native.isas():
        assert python(SAY, RIYAZ_ISA=isa) == f"True {isa}"


def test_an_instruction_set_that_is_not_here_is_one_line_with_those_that_are() -> None:
    said = python(SAY, RIYAZ_ISA="sve9")
    assert said == f"False RIYAZ_ISA=sve9 cannot run here; this CPU and this build have {', '.join(native.isas())}"


def test_import_riyaz_does_not_load_the_engine() -> None:
    assert python("import sys, riyaz, riyaz.native; print('riyaz._native' in sys.modules)") == "False"


def test_a_broken_or_missing_extension_is_one_line(tmp_path: Path) -> None:
    package = tmp_path / "riyaz"
    package.mkdir()
    for name in ("__init__.py", "errors.py", "extras.py", "native.py"):
        shutil.copy(PACKAGE / name, package)
    assert python(SAY, tmp_path).startswith("False the C++ engine is not built: there is none for this Python; ")
    (package / f"_native{SUFFIX}").write_text("not a library")
    assert python(SAY, tmp_path).startswith("False the C++ engine cannot be loaded: ")
    raised = "from riyaz import native, RiyazError\ntry: native.isa()\nexcept RiyazError as e: print('one line:', e)"
    assert python(raised, tmp_path).startswith("one line: the C++ engine cannot be loaded: ")
