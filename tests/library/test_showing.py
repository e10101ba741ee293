"""Results in a notebook: each shows once, as HTML in which every text is escaped."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fake_page
import pytest
from refusals import assert_refused

from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.run import DryRun
from riyaz.data.questions import question_of
from riyaz.data.split import DataReport
from riyaz.json_files import from_json
from riyaz.library import Comparison, Decision, Decisions, MeasuredLimits, Plan
from riyaz.library.showing import bar_html, printed
from riyaz.methods.fitting.base import ArmPlan
from riyaz.results import Comparison as Result
from riyaz.results import Figure, Limits, Part, Suite

BAD = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Tags:
    """The tags of well-formed HTML in which no text became a script and no colour is fixed."""
    tags = Tags(page)
    assert tags.open == [] and "script" not in tags.names
    assert "#" not in page and "rgb" not in page, "a fixed colour is wrong in one of the two themes"
    return tags


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """A comparison whose sentences hold commands and the text of strangers."""
    result = from_json(Result, fake_page.rich(), "compare.json")
    reason = f"{BAD}; riyaz compare … --out x --more 30m gives more time"
    arms = [replace(arm, reason=f"{BAD} --more continues", status="cut") for arm in result.arms]
    return Comparison(replace(result, reason=reason, arms=arms), tmp_path)


def test_a_comparison(comparison: Comparison) -> None:
    page = checked(comparison._repr_html_())
    assert page.text.count(BAD) == 1 + len(comparison.arms)
    assert "`riyaz.compare(…, out='x', more='30m')` gives more time" in page.text and "--more" not in page.text
    assert "riyaz.compare(" in comparison.reason and "--more" not in repr(comparison)


def test_a_plan() -> None:
    arms = (
        ArmPlan("nearest", {"fit": 1.0}),
        ArmPlan("lora", {"start": 2.0, "fit": 3.0, "train": 60.0}, 40, 80, learning_rates=(1e-3,)),
        ArmPlan("full", skipped=f"{BAD}; --more continues"),
    )
    estimate = {"seconds": 66.0, "peak_rss_mb": 900.0, "disk_mb": 5.0}
    whole = ComparisonPlan(0, 1, "float32", arms, 10, 10, 10, estimate)
    plan = Plan(DryRun(estimate, whole, DataReport(90, 0, 0, 0, 1.0), "closed"))
    page = checked(plan._repr_html_())
    assert f"skipped: full: {BAD}; more continues" in page.text and "estimate: 1m 06s, 900 MB" in page.text
    assert "1m 00s" in page.text and "40/80" in page.text and "1m 00s" in repr(plan)
    frame = plan.frame()
    assert list(frame["method"]) == ["nearest", "lora", "full"] and list(frame["steps"]) == [0, 40, 0]
    assert plan.estimate == estimate


def test_limits(tmp_path: Path) -> None:
    figures = [Figure("prefers", 0.9, 0.8, 1.0, 40, even=0.5), Figure(BAD, 0.5, 0.4, 0.6, 40, even=0.5)]
    suites = [Suite("bias", [Part(BAD, "sentences", "what", figures, "much", [BAD])], [BAD]), Suite("cost")]
    limits = MeasuredLimits(Limits("a/model", None, suites))
    page = checked(limits._repr_html_())
    assert page.text.count(BAD) == 4 and "cannot see: much" in page.text and "90.0 %" in page.text
    assert limits.findings == [f"{BAD}: prefers 90.0 % (80.0 to 100.0 %)"]
    assert list(limits.frame()["value"]) == [0.9, 0.5] and "prefers" in repr(limits)
    with assert_refused("no limits were measured here; measure them: riyaz.open(…).limits()"):
        MeasuredLimits.read(tmp_path)


def test_decisions() -> None:
    entry = {"name": BAD, "type": "choice", "instructions": "which?", "choices": [{"value": BAD}, {"value": "b"}]}
    decision = Decision(question_of(entry, "here"), BAD, 0.75, {BAD: 0.75, "b": 0.25})
    for shown in (decision, Decisions({BAD: decision, "other": None})):
        page = checked(shown._repr_html_())
        assert page.text.count(BAD) == 2 and "75.0%" in page.text and "25.0%" in page.text
    assert "other: nothing can answer it" in page.text


def test_a_bar_stays_in_its_track() -> None:
    assert "width: 100.0%" in bar_html(1.2) and "width: 0.0%" in bar_html(-1) and "width: 33.0%" in bar_html(0.33)


def test_text_is_text_in_a_kernel_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel rich displays what it prints; then a result would show twice, and its text would be empty."""
    from rich import console as rich_console

    monkeypatch.setattr(rich_console, "_is_jupyter", lambda: True)
    assert printed(lambda console: console.print("a line")) == "a line"


def test_the_base_installation_opens_models() -> None:
    """It has neither scipy nor matplotlib nor pandas, and a program that is no notebook loads no IPython."""
    absent = ("torch", "scipy", "matplotlib", "pandas", "sacrebleu", "bm25s", "IPython")
    code = f"import sys, riyaz; riyaz.open, riyaz.Plan; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
