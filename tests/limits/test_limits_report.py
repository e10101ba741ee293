"""limits.json as a page, as Markdown, on the terminal and beside a comparison; hostile text in it does nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fake_page
import pytest
from conftest import Finished
from tiny_comparison import command

from riyaz.json_files import from_json, write_json
from riyaz.report import write
from riyaz.report.comparison import html, markdown
from riyaz.report.limits import html as limits_section
from riyaz.report.limits import markdown as limits_markdown
from riyaz.report.limits import pictures as limits_pictures
from riyaz.report.limits import words as limits_words
from riyaz.results import LIMITS, Comparison, Curve, Figure, Limits, Part, Suite


def document(text: str = "x", value: float = 0.6) -> Limits:
    groups = [
        Figure("prefers the stereotype", value, value - 0.05, value + 0.05, 100, "share", group, 0.5, 0.0004)
        for group in ("all", "age", "gender")
    ]
    curve = Curve("risk by coverage", "share of answers given", "share of them wrong", [(0.1, 0.0), (1.0, 0.4)])
    part = Part(f"pairs {text}", f"file {text}", f"what {text}", groups, f"blind {text}", [f"note {text}"], [curve])
    loss = Part("loss", "t", "w", [Figure("loss per token", 2.5, 2.4, 2.6, 9, "nats")], "b")
    suites = [Suite("bias", [part], [f"left out {text}"], 3.0), Suite("context", [loss], [], 1.0)]
    return Limits(f"folder/model {text}", "ab", suites, served="bf16", seconds=4.0, date="2026-11-28")


def test_figures_are_said_with_their_units() -> None:
    said = {unit: limits_words.shown(0.1234, unit) for unit in ("share", "score", "nats", "ms", "money", "J")}
    assert said == {"share": "12.3 %", "score": "0.123", "nats": "0.123 nats", "ms": "0.12 ms", "money": "0.1234",
                    "J": "0.12 J"}  # fmt: skip
    assert limits_words.shown(None, "share") == "–" and limits_words.shown(1.5e12, "FLOP") == "1.50e+12 FLOP"


def test_a_column_without_values_is_left_out() -> None:
    titles, rows = limits_words.table(document().suites[1].parts[0])
    assert titles == ["figure", "value", "95 % interval", "n"] and rows[0][1] == "2.500 nats"
    titles, rows = limits_words.table(document().suites[0].parts[0])
    assert titles[2] == "value (even: 50.0 %)" and titles[-1] == "p" and rows[0][-1] == "<0.001"


def test_what_is_beyond_chance_is_named() -> None:
    part = document().suites[0].parts[0]
    assert limits_words.findings([part])[1] == "pairs x, age: prefers the stereotype 60.0 % (55.0 to 65.0 %)"
    assert limits_words.findings(document(value=0.52).suites[0].parts) == []


def test_a_path_of_this_machine_is_in_no_report(tmp_path: Path) -> None:
    paths = write.write_limits(replace(document(), target="/somewhere/else/arms/lora/kept/artifact"), tmp_path)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert "What lora cannot do" in text and "somewhere" not in text


def test_a_figure_stands_with_its_group_in_one_column() -> None:
    titles, rows = limits_words.joined(*limits_words.table(document().suites[0].parts[0]))
    assert titles[0] == "figure" and [row[0] for row in rows] == [
        "prefers the stereotype", "prefers the stereotype, age", "prefers the stereotype, gender",
    ]  # fmt: skip
    plain = limits_words.table(document().suites[1].parts[0])
    assert limits_words.joined(*plain) == plain


def test_a_page_of_its_own(tmp_path: Path) -> None:
    paths = write.write_limits(document(), tmp_path)
    text, page = (path.read_text(encoding="utf-8") for path in paths)
    assert "# What model x cannot do" in text and "| all | prefers the stereotype | 60.0 % | 55.0 to 65.0 % |" in text
    assert "It cannot see: blind x" in text and "* left out: left out x" in text
    assert "What model x cannot do" in page and page.count("<svg") == 4 and "It cannot see: " in page


def test_doubled_counts_stand_in_equal_steps() -> None:
    assert limits_pictures.doubles([0, 1, 2, 4, 8]) and limits_pictures.doubles([256, 512, 1024])
    assert not limits_pictures.doubles([0, 2, 4]) and not limits_pictures.doubles([1, 2])
    doubled = limits_pictures.curve(Curve("c", "examples", "score", [(0, 0.1), (1, 0.2), (2, 0.4), (4, 0.4)]), 700, "c")
    assert doubled is not None and ">4<" in str(doubled) and ">3<" not in str(doubled)


def test_hostile_text_stays_text() -> None:
    for attack in fake_page.ATTACKS[:8]:
        page = limits_section.whole_page(document(attack))
        assert "<script>window" not in page and "<img src" not in page and "<iframe" not in page
        assert "<script>" not in limits_markdown.whole(document(attack))


@pytest.mark.slow
def test_a_comparison_shows_what_its_arms_cannot_do() -> None:
    compared = from_json(Comparison, fake_page.rich(), "test")
    measured = {"lora": document(), "full": document(value=0.7)}
    page, text = html.render(compared, {}, (), measured), markdown.render(compared, None, measured)
    for said in ("What it cannot do", "lora: weights in bf16 · 2026-11-28 · in 4.0 s"):
        assert said in page
    assert "## What they cannot do" in text and "### Limits of lora" in text
    assert "| pairs x: prefers the stereotype | 60.0 % (55.0 to 65.0 %) | 70.0 % (65.0 to 75.0 %) |" in text
    assert 'id="limits"' not in html.render(compared, {}) and "cannot do" not in markdown.render(compared)


def test_the_report_reads_what_the_arms_keep(quick: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(quick.out, tmp_path / "out")
    write_json(folder / "arms" / "zero_shot" / "kept" / "artifact" / LIMITS, document())
    _, page = write.write(folder)
    assert "zero_shot: weights in bf16 · 2026-11-28" in page.read_text(encoding="utf-8")
    (folder / "arms" / "zero_shot" / "kept" / "artifact" / LIMITS).write_text(json.dumps({"schema": 1}))
    with pytest.raises(Exception, match="target is missing"):
        write.write(folder)


def test_an_arm_measured_by_command_is_in_the_report(quick: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(quick.out, tmp_path / "out")
    told = command("limits", folder / "nearest", "--suite", "cost")
    assert told.status == 0 and "report.html" in told.err
    assert "nearest: " in (folder / "report.html").read_text(encoding="utf-8")
