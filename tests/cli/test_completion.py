"""The scripts of `riyaz completion` complete commands, options and their values."""

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from riyaz.cli import main as cli
from riyaz.cli import model_names
from riyaz.engine.opening import EMBEDDER
from riyaz.sources.catalogue import CATALOGUE

# Completes the words that it is given as bash does, with the script in the first one.
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_riyaz
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["riyaz", "comp"], {"compare", "completion"}),
        (["riyaz", "compare", "--bud"], {"--budget"}),
        (["riyaz", "compare", "--task", ""], {"closed", "short", "free"}),
        (["riyaz", "rag", ""], {"add", "ask", "verify"}),
        (["riyaz", "completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(capsys, tmp_path, words, offered):
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "riyaz.bash"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", script, *words], capture_output=True, text=True, check=True)
    assert offered <= set(done.stdout.split())
    assert len(set(done.stdout.split()) - offered) <= 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(capsys, shell):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for verb in [verb for group in cli.VERBS.values() for verb in group]:
        assert verb in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


LANGUAGE_MODELS = {*CATALOGUE, "mine"} - {EMBEDDER}


@pytest.fixture(scope="module")
def at_tab(tmp_path_factory: pytest.TempPathFactory):
    """Asks a bash, by the script that `riyaz completion bash` prints, what it offers at Tab behind the words given.

    One model is in the cache, torch and the network are out of reach.
    """
    folder = tmp_path_factory.mktemp("bash")
    (folder / "home/models/mine").mkdir(parents=True)
    (folder / "home/models/.tmp-half").mkdir()
    (folder / "path").mkdir()
    barred = "import socket\ndef refuse(*asked):\n    raise OSError('no network')\nsocket.socket.connect = refuse\n"
    (folder / "path/sitecustomize.py").write_text(f"import sys\nsys.modules['torch'] = None\n{barred}")
    command = folder / "path/riyaz"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m riyaz "$@"\n')
    command.chmod(0o755)
    sources = str(Path(__file__).parents[2] / "src")
    environment = {
        **os.environ,
        "PATH": f"{folder / 'path'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder / 'path'}:{sources}",
        "RIYAZ_HOME": str(folder / "home"),
    }
    script = folder / "riyaz.bash"
    printed = subprocess.run(["riyaz", "completion", "bash"], capture_output=True, env=environment, check=True)
    script.write_bytes(printed.stdout)

    def ask(*words: str) -> set[str]:
        line = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), "riyaz", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment, cwd=folder)
        assert done.stderr == ""
        return set(shlex.split(done.stdout))  # bash writes a comma as \\,

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pull", ""], {*CATALOGUE, "mine"}),
        (["pull", "smol"], {"smollm2-135m"}),
        (["chat", ""], LANGUAGE_MODELS),
        (["chat", "--seed", "3", "m"], {"mine"}),
        (["compare", "rows.jsonl", "--model", ""], LANGUAGE_MODELS),
        (["compare", "rows.jsonl", "--model", "=", "mi"], {"mine"}),
        (["compare", "rows.jsonl", "--model", "mine,smol"], {"mine,smollm2-135m"}),
        (["verify", "mini"], {"minilm"}),
        (["distil", "mi"], {"mine"}),
        (["distil", "mine", "--into", "smol"], {"smollm2-135m"}),
        (["chat", "mine", ""], set()),
    ],
)
def test_bash_completes_names_of_models(at_tab, words: list[str], offered: set[str]) -> None:
    assert at_tab(*words) == offered


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Asks riyaz itself, as the scripts do, for the words that can stand behind those given."""
    (tmp_path / "models/mine").mkdir(parents=True)
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path))

    def ask(*words: str) -> set[str]:
        assert cli.main(["__complete", *words]) == 0
        return {line.partition("\t")[0] for line in capsys.readouterr().out.split("\n") if line and line[0] != "\x1f"}

    return ask


@pytest.mark.parametrize("verb", ["evaluate", "limits", "run", "decide", "generate", "inside", "export", "quantize",
                                  "card", "serve", "ternarize"])  # fmt: skip
def test_every_verb_that_takes_a_model_offers_them(offered, verb: str) -> None:
    assert offered(verb, "") == LANGUAGE_MODELS


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("data", "--model"), ("adapt", "--model"), ("predict", "--model"), ("ui", "--model"),
        ("export", "--model"), ("quantize", "--model"), ("inside", "--before"), ("compare", "--teacher"),
    ],
)  # fmt: skip
def test_every_option_that_takes_a_model_offers_them(offered, verb: str, option: str) -> None:
    assert offered(verb, option, "") == LANGUAGE_MODELS


def test_the_embedder_has_one_name() -> None:
    """model_names does not import the engine, which loads numpy."""
    assert model_names.EMBEDDER == EMBEDDER


def test_tab_does_not_wait(at_tab) -> None:
    """Half a second is what a person takes for at once; .3 of a processor's seconds were measured."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert at_tab("pull", "mini") == {"minilm"}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


def test_bash_completes_files_where_it_has_no_word(at_tab, capsys) -> None:
    """A model may also be a folder: what the script does not know, bash completes as a file."""
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "complete -o default -F _riyaz riyaz"
