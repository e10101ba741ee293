"""What to do with a comparison or an artifact next: command lines with their real paths, ready to paste."""

import shlex
from pathlib import Path

from riyaz.report.comparison.arms import about
from riyaz.report.comparison.precisions import merge_options
from riyaz.results import ArmResult, Comparison

MORE = "30m"  # of time, in the command that goes on
QUESTIONS, ANSWERS = "QUESTIONS.jsonl", "answers.jsonl"
HELD_BY = {"soft_prompt": "peft", "linear": "numpy", "encoder": "hf"}  # the format of weights that gguf does not hold
OWN_OUTPUT = ("--json", "--quiet", "--dry-run")  # flags of a command that the next one need not repeat


def after_comparison(comparison: Comparison, folder: Path) -> list[tuple[str, str]]:
    """(what it does, command line) for the picked arm of the comparison in `folder`: answer rows, chat, export; then
    the command that gives it more time, where an arm was cut short or left out, or nothing is decided."""
    picked = comparison.arm(comparison.pick)
    test = comparison.data.files.get("test")
    rows = test.path if test is not None and _typed(comparison.command) else QUESTIONS
    commands = after_arm(picked, folder / picked.name, rows) if picked is not None else []
    more = _with_more_time(comparison.command)
    unfinished = comparison.decision == "undecided" or any(arm.status != "ok" for arm in comparison.arms)
    return commands + ([("more time", more)] if more and unfinished else [])


def after_arm(arm: ArmResult, target: Path, rows: str | Path = QUESTIONS) -> list[tuple[str, str]]:
    """(what it does, command line) for the artifact of an arm, which `target` names; export only where it has weights
    of its own, and not of one that answers several questions, which no other format holds."""
    name = str(target)
    if arm.questions:
        decide = ["riyaz", "decide", name, str(rows), "--out", ANSWERS]
        return [("answer rows", shlex.join(decide)), ("serve", shlex.join(["riyaz", "serve", name]))]
    commands = [
        ("answer rows", ["run", name, str(rows), "--out", ANSWERS]),
        ("chat", ["chat", name]),
    ]
    if arm.trainable_params and not arm.chosen.get("of"):
        to = ["--format", _format(arm), "--out", f"{arm.name}-exported"]
        commands.append(("export", ["export", name, *to]))
    if options := merge_options(arm):
        commands.append(("merge", ["merge", name, *options, "--out", f"{arm.name}-merged"]))
    return [(title, shlex.join(["riyaz", *words])) for title, words in commands]


def _format(arm: ArmResult) -> str:
    """The format of export that holds all of an arm's weights; gguf where it can."""
    weights = about(arm).weights
    if arm.chosen.get("label_head"):
        return "hf" if weights == "full" else "peft"
    return HELD_BY.get(weights, "gguf")


def _typed(command: str) -> bool:
    """Whether the comparison was made on the command line: its paths are those of files."""
    return command.startswith("riyaz compare ")


def _with_more_time(command: str) -> str:
    """The command of a comparison with `--more`; empty for one that was not typed or that no shell reads."""
    try:
        words, rest = iter(shlex.split(command)), []
    except ValueError:
        return ""
    if not _typed(command):
        return ""
    for word in words:
        if word == "--more":
            next(words, None)
        elif word not in OWN_OUTPUT and not word.startswith("--more="):
            rest.append(word)
    return shlex.join([*rest, "--more", MORE])
