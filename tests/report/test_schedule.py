"""Who did what when, in the reports of a comparison on several places; and nothing of it where there is one."""

import io
import re

from fake_comparison import comparison, typed
from rich.console import Console

from riyaz.report.comparison import html, markdown, schedule, schedule_picture, terminal

TURNS = [
    {"place": "ssh a", "work": "fit", "arm": "lora", "part": "kept", "began": 30.0, "ended": 90.0, "outcome": "lost"},
    {"place": "here", "work": "fit", "arm": "lora", "part": "kept", "began": 95.0, "ended": 300.0, "outcome": "done"},
    {"place": "here", "work": "evaluate", "arm": "lora", "part": "kept", "began": 300.0, "ended": 312.5,
     "outcome": "done"},
    {"place": "<b>ssh</b> & co", "work": "fit", "arm": "lora", "part": "seed-1", "began": 320.0, "ended": 500.0,
     "outcome": "done"},
    {"place": "ssh a", "work": "fit", "arm": "full", "part": "kept", "began": 320.0},
]  # fmt: skip


def test_the_picture_has_a_row_for_each_place_and_a_bar_for_each_turn() -> None:
    placed = typed(comparison(schedule=TURNS))
    for width, name in ((1040.0, "w"), (340.0, "n")):
        drawn = schedule_picture.drawn(placed, width, name)
        assert drawn is not None
        text = str(drawn)
        assert text.startswith("<svg") and "ssh a" in text and "here" in text and "<b>" not in text
        assert len(re.findall(r'id="\w-patch_\d+"', text)) >= 4
    page = html.render(placed, {})
    assert schedule.TITLE in page and "<b>ssh</b>" not in page and "lora seed-1" in page


def test_the_other_reports_have_a_line_for_each_place() -> None:
    placed = typed(comparison(schedule=TURNS))
    assert schedule.lines(placed) == [
        "ssh a: fitted nothing, busy for 1m 00s, lost once", "here: fitted lora, busy for 3m 38s",
        "<b>ssh</b> & co: fitted lora, busy for 3m 00s",
    ]  # fmt: skip
    assert "here: fitted lora" in markdown.render(placed)
    out = Console(file=io.StringIO(), width=200)
    terminal.print_comparison(placed, out)
    assert "place  here: fitted lora" in out.file.getvalue()  # type: ignore[attr-defined]
    titles, rows = schedule.table(placed)
    assert len(rows) == 4 and all(len(row) == len(titles) for row in rows)


def test_one_place_is_not_spoken_of() -> None:
    alone = typed(comparison())
    assert schedule_picture.drawn(alone, 1040.0, "w") is None and schedule.lines(alone) == []
    assert schedule.TITLE not in html.render(alone, {}) + markdown.render(alone)
