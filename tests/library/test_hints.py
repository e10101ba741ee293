"""What riyaz says in Python and in notebooks: calls in place of commands, arguments in place of flags."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from refusals import assert_refused

import riyaz
from riyaz.library.hints import in_notebook, in_words_of_python


@pytest.mark.parametrize(
    ("said", "python"),
    [
        ("run `riyaz pull minilm`", "run `riyaz.pull('minilm')`"),
        ("`riyaz pull x --accept-licence` accepts them", "`riyaz.pull('x', accept_licence=True)` accepts them"),
        ("run `riyaz pull hf:a/b`, or copy it", "run `riyaz.pull('hf:a/b')`, or copy it"),
        ("and run `riyaz pull PATH`", "and run `riyaz.pull(PATH)`"),
        ("riyaz compare … --out 'my results' --more 30m.", "`riyaz.compare(…, out='my results', more='30m')`."),
        ("riyaz compare … --out a --more 30m gives more", "`riyaz.compare(…, out='a', more='30m')` gives more"),
        ("remove it and run riyaz compare again", "remove it and run riyaz.compare again"),
        ("leave --max-ms out; --more continues", "leave max_ms out; more continues"),
        ("--limits adds it", "limits=True adds it"),
        ("answer with riyaz serve --port 1", "answer with riyaz serve --port 1"),
        ("an unpaired ' in `riyaz pull 'x`", "an unpaired ' in `riyaz.pull(\"'x\")`"),
        ("pip install 'riyaz[train]'", "pip install 'riyaz[train]'"),
    ],
)
def test_commands_are_calls(said: str, python: str) -> None:
    assert in_words_of_python(said) == python


def test_a_notebook_installs_with_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    terminal, kernel = SimpleNamespace(), SimpleNamespace(kernel=object())
    for shell, expected in ((None, False), (terminal, False), (kernel, True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() is expected
    assert in_words_of_python("pip install pandas") == "%pip install pandas"
    assert in_words_of_python("%pip install pandas") == "%pip install pandas"


def test_an_error_of_the_library_names_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path))
    with assert_refused("the model minilm has not been pulled yet; run `riyaz.pull('minilm')`"):
        riyaz.open("minilm")


def test_an_error_is_one_line_in_a_cell() -> None:
    error = riyaz.RiyazError("is missing", "a.csv", "give\nanother")
    assert error._render_traceback_() == ["RiyazError: a.csv: is missing; give another"]
