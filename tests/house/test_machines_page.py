"""docs/from-one-machine-to-a-thousand.md: bash, YAML, torchrun and riyaz can read the lines that are for them.

The checks are functions of a page's text, so that each is also shown red on a small text.
"""

import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml  # huggingface_hub and transformers need it
from test_docs import help_of, wrong
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/from-one-machine-to-a-thousand.md").read_text(encoding="utf-8")
OPERATORS = {"&", "&&", "|", "||", ";"}


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of these languages."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_commands(text: str) -> list[list[str]]:
    """The words of every command of torchrun or riyaz in lines of a shell, also where it is one word for ssh."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        found += [command for word in words if " " in word for command in shell_commands(word)]
        place = next((place for place, word in enumerate(words) if word in ("torchrun", "riyaz")), len(words))
        found += [list(takewhile(lambda word: word not in OPERATORS, words[place:]))] * (place < len(words))
    return found


def documents_of(text: str) -> list[dict[str, Any]]:
    """The documents of a page's YAML."""
    return [each for block in blocks(text, "yaml") for each in yaml.safe_load_all(block)]


def pods(text: str) -> list[tuple[dict[str, Any], list[str]]]:
    """The jobs of a page's YAML, each with the command of its one container."""
    jobs = [each for each in documents_of(text) if each["kind"] == "Job"]
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    return [(job, [*each["command"], *each.get("args", ())]) for job, each in zip(jobs, containers, strict=True)]


def problem_of(words: list[str]) -> str:
    """What is wrong with one command of torchrun or riyaz, or ``."""
    if words[0] == "torchrun":
        try:
            parsed = get_args_parser().parse_args(words[1:])
        except SystemExit:
            return "torchrun does not take it"
        if not parsed.module or parsed.training_script != "riyaz":
            return "torchrun does not start riyaz"
        words = ["riyaz", *parsed.training_script_args]
    return wrong(words, ROOT, help_of, set())


def problems(text: str) -> list[str]:
    """Shell blocks that bash cannot read, and commands that their program does not take."""
    found = []
    commands = [words for _, words in pods(text)]
    for block in blocks(text, "shell", "bash"):
        told = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        if told.returncode:
            found.append(told.stderr)
        else:
            commands += shell_commands(block)
    found += [f"{shlex.join(words)}: {problem}" for words in commands if (problem := problem_of(words))]
    named = sum(len(re.findall(r"(?<![\w/.-])riyaz,? [a-z]", block)) for block in blocks(text, "shell", "bash", "yaml"))
    return found + [f"{named} commands, of which {len(commands)} were read"] * (named != len(commands))


def test_every_program_can_read_its_lines() -> None:
    assert problems(PAGE) == []
    assert len(blocks(PAGE, "shell")) >= 4 and blocks(PAGE, "yaml"), "nothing was read"


def test_the_pods_of_the_job_find_each_other() -> None:
    services = [each["metadata"] | each["spec"] for each in documents_of(PAGE) if each["kind"] == "Service"]
    for job, words in pods(PAGE):
        name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
        (service,) = [each for each in services if each["selector"] == {"job-name": name}]
        assert pod["subdomain"] == service["name"] and service["clusterIP"] == "None"
        parsed = get_args_parser().parse_args(words[1:])
        assert parsed.rdzv_endpoint.startswith(f"{name}-0.{service['name']}:")
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(parsed.nnodes)
        assert {each["name"] for each in pod["containers"][0]["volumeMounts"]} == {
            each["name"] for each in pod["volumes"]
        }


@pytest.mark.parametrize(
    ("language", "lines", "says"),
    [
        ("shell", "for host in a b; do\n  ssh $host 'torchrun -m riyaz pretrain x --out y' &\ndone", ""),
        ("shell", "for host in a b; do\n  ssh $host 'torchrun -m riyaz pretrain x --out y' &", "syntax error"),
        ("shell", "ssh a 'cd b && torchrun -m riyaz pretrain x --outt y'", "no option --outt"),
        ("shell", "srun torchrun --nnode-count 2 \\\n  -m riyaz pretrain x", "torchrun does not take it"),
        ("shell", "torchrun -m riyas pretrain x", "does not start riyaz"),
        ("shell", "srun riyaz pretrian x | tee log", "no command pretrian"),
        ("shell", "cat <(riyaz data x)", ""),
        ("yaml", "kind: Job\nspec: {template: {spec: {containers: [{command: [riyaz, data, --jsom]}]}}}", "--jsom"),
    ],
)
def test_a_wrong_line_is_seen(language: str, lines: str, says: str) -> None:
    found = problems(f"Do\n```{language}\n{lines}\n```\n")
    assert says in "\n".join(found) if says else found == []
