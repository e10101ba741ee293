"""What the reports say of a smaller precision: of a model that was trained whole, and of an adapter when merged."""

import html as escaping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_comparison import comparison, typed, typed_arm
from test_report import printed, screen

from riyaz.cli import main as cli
from riyaz.report.comparison import html, markdown, terminal
from riyaz.report.comparison.next_commands import after_arm
from riyaz.report.comparison.precisions import merge_options, merged_line, served_line
from riyaz.report.limits.words import facts
from riyaz.results import ArmResult, Comparison, Limits, PrecisionScore, in_words


def score(precision: str, mb: float, worse_by: float, at_most: float | None, ms: float = 20.0) -> PrecisionScore:
    return PrecisionScore(precision, precision, mb, 0.5, worse_by, at_most, 40, ms)


BF16 = score("bf16", 258.0, 0.0, 0.0)
INT8, INT4 = score("int8", 140.0, 0.002, 0.006), score("int4", 80.2, 0.04, 0.052)
BESIDE, AUTO = score("beside", 258.0, 0.0, 0.0, 0.0), score("auto", 258.0, 0.0001, 0.0004, 35.0)
SERVED = "served in int8 (258 MB → 140 MB): +0.002 nats, 95 % below 0.006; int4 was worse by 0.040, 95 % below 0.052"
BOTH = "30.0 ms per answer, 35.0 with its adapter merged into the weights"
MERGED = (
    f"{BOTH}; merged in int8 (258 MB → 140 MB) 20.0 ms, +0.002 nats, 95 % below 0.006: riyaz merge --precision int8 "
    "writes it; int4 was worse by 0.040, 95 % below 0.052"
)


def whole(*scores: PrecisionScore) -> ArmResult:
    return typed_arm("full", score=0.9, trainable_params=9, chosen={"precisions": [asdict(each) for each in scores]})


def adapted(*scores: PrecisionScore) -> ArmResult:
    arm = typed_arm("lora", score=0.9, trainable_params=9, ms_per_answer=30.0)
    return replace(arm, merged_ms=35.0, merged=list(scores) or None)


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        ((), ""),
        ((BF16, INT8, INT4), SERVED),
        ((BF16, INT8, replace(INT4, worse_by=-0.001, at_most=0.004)),
         "served in int4 (258 MB → 80.2 MB): -0.001 nats, 95 % below 0.004"),
        ((BF16, replace(INT8, worse_by=-0.002, at_most=0.03), INT4),
         "served in bf16 (258 MB); int8 was better by 0.002, 95 % below 0.030; int4 was worse by 0.040, 95 % below "
         "0.052"),
        ((BF16, replace(INT8, at_most=None)), "served in bf16 (258 MB); int8 was not chosen: one row says too little"),
    ],
)  # fmt: skip
def test_a_whole_models_line(scores: tuple[PrecisionScore, ...], line: str) -> None:
    assert served_line(whole(*scores)) == line


@pytest.mark.parametrize(
    ("scores", "line", "options"),
    [
        ((), BOTH, []),
        ((BESIDE, AUTO, INT8, INT4), MERGED, ["--precision", "int8"]),
        ((BESIDE, AUTO, replace(INT8, at_most=0.02), INT4),
         f"{BOTH}; merged in int8 was worse by 0.002, 95 % below 0.020; merged in int4 was worse by 0.040, 95 % below "
         "0.052", []),
    ],
)  # fmt: skip
def test_an_adapters_line(scores: tuple[PrecisionScore, ...], line: str, options: list[str]) -> None:
    arm = adapted(*scores)
    assert (merged_line(arm), merge_options(arm)) == (line, options)
    assert merged_line(replace(arm, merged_ms=None)) == ""


def made() -> Comparison:
    return replace(typed(comparison()), arms=[whole(BF16, INT8, INT4), adapted(BESIDE, AUTO, INT8, INT4)], pick="lora")


def test_every_report_has_both_lines() -> None:
    out = screen(300)
    terminal.print_comparison(made(), out)
    text, page = markdown.render(made()), escaping.unescape(html.render(made(), {}))
    for line in (SERVED, MERGED):
        assert line in printed(out) and line in page and line[1:] in text.replace("\\", ""), line


def test_the_command_that_makes_it_smaller_is_one_of_the_next_ones() -> None:
    commands = dict(after_arm(made().arms[1], Path("out/lora")))
    assert commands["merge"] == "riyaz merge out/lora --precision int8 --out lora-merged"
    _, bound, _ = cli.build().parse_args(commands["merge"].split()[1:])
    assert bound.arguments["precision"] == "int8"
    assert "merge" not in dict(after_arm(adapted(), Path("out/lora")))


def test_how_weights_are_held_is_said_in_plain_words() -> None:
    assert in_words("int4 as stored") == "int4, as in its file"
    assert in_words("bf16") == "bf16" and in_words(None) == "an unknown precision"
    limits = Limits("m", None, [], served="int8 as stored", date="2026-01-02")
    assert facts(limits) == "weights in int8, as in its file · 2026-01-02"
