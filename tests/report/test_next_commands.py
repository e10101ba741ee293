"""The commands that a comparison and an adaptation end with: their paths are real, and the shell reads them back."""

import shlex
from pathlib import Path

import pytest
from fake_comparison import arm, comparison, typed, typed_arm
from test_report import printed, screen

from riyaz.cli import main as cli
from riyaz.report.comparison import markdown, terminal
from riyaz.report.comparison.next_commands import after_arm, after_comparison

TESTED = {"files": {"test": {"path": "my rows/test.jsonl", "sha256": "0" * 64, "format": "text,label"}}}


def test_the_picked_arm_is_named_by_folder_and_method():
    commands = dict(after_comparison(typed(comparison(data=TESTED)), Path("my results")))
    assert commands == {
        "answer rows": "riyaz run 'my results/lora' 'my rows/test.jsonl' --out answers.jsonl",
        "chat": "riyaz chat 'my results/lora'",
        "export": "riyaz export 'my results/lora' --format gguf --out lora-exported",
        "more time": "riyaz compare train.jsonl --budget 25m --more 30m",
    }


@pytest.mark.parametrize("line", list(dict(after_comparison(typed(comparison()), Path("out"))).values()))
def test_the_command_line_reads_each_of_them(line):
    _, bound, _ = cli.build().parse_args(shlex.split(line)[1:])
    assert bound.arguments


def test_what_has_no_weights_is_not_exported_and_a_soft_prompt_only_to_peft():
    plain = dict(after_arm(typed_arm("few_shot", score=0.5), Path("out")))
    assert list(plain) == ["answer rows", "chat"] and "QUESTIONS.jsonl" in plain["answer rows"]
    soft = dict(after_arm(typed_arm("prompt_tuning", score=0.5, trainable_params=9), Path("out")))
    assert "--format peft" in soft["export"]


@pytest.mark.parametrize(("method", "with_head", "without"), [("lora", "peft", "gguf"), ("full", "hf", "gguf")])
def test_a_head_of_labels_is_exported_where_it_fits(method: str, with_head: str, without: str) -> None:
    for chosen, wanted in (({"label_head": True}, with_head), ({}, without)):
        arm = typed_arm(method, score=0.5, trainable_params=9, chosen=chosen)
        assert f"--format {wanted} " in dict(after_arm(arm, Path("out")))["export"]


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("riyaz compare a.jsonl --more 10m --out x", "riyaz compare a.jsonl --out x --more 30m"),
        ("riyaz compare a.jsonl --more=10m --json --quiet", "riyaz compare a.jsonl --more 30m"),
        ("riyaz.compare('a.jsonl')", None),
        ("", None),
    ],
)
def test_more_time_is_the_same_command_with_more(command, more):
    assert dict(after_comparison(typed(comparison(command=command)), Path("x"))).get("more time") == more


def test_a_comparison_that_is_whole_and_certain_needs_no_more_time():
    whole = comparison(arms=[arm("nearest", score=0.5), arm("full", score=0.9, trainable_params=9)], pick="full")
    assert "more time" not in dict(after_comparison(typed(whole), Path("x")))
    undecided = dict(after_comparison(typed(whole | {"decision": "undecided"}), Path("x")))
    assert "more time" in undecided


def test_without_a_pick_there_is_nothing_to_use():
    nothing = typed(comparison(pick=None, runner_up=None, decision="nothing"))
    assert list(dict(after_comparison(nothing, Path("x")))) == ["more time"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_the_terminal_each_stands_whole_on_its_line(width):
    out, commands = screen(width), after_comparison(typed(comparison(data=TESTED)), Path("results/" + "x" * 60))
    terminal.print_next(commands, out)
    lines = [line.strip() for line in printed(out).splitlines()]
    assert all(any(line.startswith(title) and line.endswith(command) for line in lines) for title, command in commands)


def test_report_md_has_them_in_a_block():
    document = typed(comparison(data=TESTED))
    text = markdown.render(document, Path("out"))
    block = text.partition("## What to do next\n\n```bash\n")[2].partition("\n```")[0]
    assert block.splitlines() == [f"{command}  # {title}" for title, command in after_comparison(document, Path("out"))]
    assert "What to do next" not in markdown.render(document)
