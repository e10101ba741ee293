"""The scripts of `riyaz completion` complete commands, options and their values."""

import shutil
import subprocess

import pytest

from riyaz.cli import main as cli

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
