"""The report: its words, the terminal's table and progress, and report.md, from fabricated documents."""

import copy
import io
import json
import math
import re
from dataclasses import replace

import fake_page
import pytest
from fake_comparison import arm, comparison, typed
from rich.console import Console
from rich.text import Text

from riyaz.events import ArmDone, Done, Estimate, Note, Phase, Planned, Progress
from riyaz.methods.fitting.base import ArmPlan
from riyaz.report import words
from riyaz.report.comparison import html, markdown, terminal
from riyaz.report.media.screen import PipeConsole
from riyaz.results import FileFacts, SliceScore, TargetScores


def screen(width: int = 100, *, live: bool = False) -> Console:
    """A console that keeps what is printed; `live` pretends to be a terminal without colours."""
    return Console(file=io.StringIO(), width=width, force_terminal=live, color_system=None, highlight=False)


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1m 00s"), (60, "1m 00s"),
        (3599.4, "59m 59s"), (3599.6, "1h 00m"), (3600, "1h 00m"), (7260, "2h 01m"), (-3, "0.0 s"),
        (None, "–"), (math.inf, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_durations_read_naturally(seconds, text):
    assert words.duration(seconds) == text


def test_numbers_read_naturally():
    assert words.number(1234567) == "1,234,567"
    assert words.number(math.nan) == words.number(None) == "–"
    assert [words.tenths(v) for v in (0, 0.02, 0.06, 8.25, 1188.1)] == [
        "0.0",
        "<0.1",
        "0.1",
        "8.2",
        "1,188.1",
    ]
    assert [words.signed(v) for v in (0, 0.0123, -0.5, None, math.inf)] == ["0", "+0.012", "-0.500", "–", "–"]


def test_the_table_shows_every_arm_best_first_and_marks_the_pick():
    out = screen()
    terminal.print_comparison(typed(comparison()), out)
    lines = printed(out).splitlines()
    titles = "method, accuracy, 95 % interval, fit, ms/answer, peak MB, forgetting, artifact MB, status"
    assert re.split(r"  +", lines[0].strip()) == titles.split(", ")
    assert [line.split()[0] for line in lines[1:6]] == ["lora", "nearest", "few_shot", "zero_shot", "full"]
    cells = "lora * | 0.693 | 0.639–0.743 | 5m 22s | 61.2 | 2,312 | +0.012 | 19.6 | cut"
    assert re.split(r"  +", lines[1].strip()) == cells.split(" | ")
    assert "<0.1" in lines[2], "the floor answers in 0.02 ms"
    assert "failed" in lines[5] and "0.000" not in lines[5]


def test_the_pick_stands_beneath_the_table_and_failed_arms_say_why_in_one_line():
    out = screen()
    terminal.print_comparison(typed(comparison()), out)
    text = printed(out)
    assert "The pick: lora (certified)" in text.splitlines()
    assert comparison()["reason"] in " ".join(text.split())
    assert "cut  lora: trained 60 of 120 steps" in text.splitlines()
    assert "failed  full: out of memory at step 3" in text.splitlines()


FLOOR = {"answer": "billing", "score": 0.1467, "ci_low": 0.118, "ci_high": 0.181}


@pytest.mark.parametrize(
    ("decision", "pick", "line", "called"),
    [
        ("certified", "lora", "The pick: lora (certified)", "the pick"),
        ("tie", "lora", "A tie: lora is picked", "the pick"),
        ("undecided", "lora", "No clear winner yet: lora leads", "the leader"),
        ("undecided", None, "No method is picked", None),
        ("nothing", None, "No method is picked", None),
    ],
)
def test_every_report_says_the_decision_in_the_same_words(decision, pick, line, called):
    document = typed(comparison(decision=decision, pick=pick, floor=FLOOR))
    out = screen()
    terminal.print_comparison(document, out)
    text, page = markdown.render(document), fake_page.Page(html.render(document, {})).text
    assert line in printed(out).splitlines() and text.startswith(f"# {line}\n")
    assert line.removesuffix(" (certified)") in " ".join(page.split())
    assert [role for role in ("the pick", "the leader") if f"\\* {role}." in text] == ([called] if called else [])
    assert ("its own score is a little optimistic" in text) == (pick is not None)
    assert [role for role in ("the pick", "the leader") if f"Here: {role}" in page] == ([called] if called else [])


def test_the_floor_stands_under_the_table():
    line = "floor: always 'billing' scores 0.147 (0.118–0.181)"
    document = typed(comparison(floor=FLOOR))
    out = screen()
    terminal.print_comparison(document, out)
    assert printed(out).splitlines()[6] == line
    assert f"\n\n{line}\n\n" in markdown.render(document) and line in fake_page.Page(html.render(document, {})).text
    long = words.floor_line(typed(comparison(floor=FLOOR | {"answer": "a\nlong answer " * 9})))
    assert long.startswith("floor: always 'a long answer a long") and "…' scores 0.147" in long and len(long) < 100
    assert words.floor_line(typed(comparison())) == "no floor: no training answer occurs twice"


def test_a_comparison_in_which_every_arm_failed_says_so():
    arms = [arm("lora", status="failed", metric=None, reason="NaN"), arm("full", status="skipped")]
    document = comparison(
        arms=arms, pick=None, runner_up=None, decision="undecided", reason="No arm can be picked: lora failed."
    )
    out = screen()
    terminal.print_comparison(typed(document), out)
    assert "No arm can be picked: lora failed." in printed(out)
    assert "no reason was recorded" in printed(out)
    assert "# No method is picked" in markdown.render(typed(document))


EVENTS = [
    Estimate(500, 1900, 320, (Planned("lora", 300),)),
    Note("3 training rows\ndropped"),
    Phase("train", "1e-4", "lora"),
    Progress("train", 40, 120, "lora", loss=1.23456),
    ArmDone(arm("lora", score=0.7, ci_low=0.6, ci_high=0.8, train_seconds=200, trainable_params=9)),
    Done({}),
]


def test_without_a_terminal_progress_is_plain_throttled_lines():
    now = [0.0]
    out = screen()
    with terminal.listener(out, clock=lambda: now[0]) as listen:
        for event in EVENTS[:3]:
            listen(event)
        for step in range(1, 101):
            now[0] += 6
            listen(replace(EVENTS[3], done=step, total=100))
        listen(Progress("evaluate", 1, 9, "lora"))
        listen(EVENTS[4])
        listen(EVENTS[5])
    lines = printed(out).splitlines()
    assert lines[0] == "estimate: 8m 20s, 1,900 MB of memory, 320 MB of disk"
    assert lines[1] == "3 training rows dropped"
    assert lines[2] == "lora: train 1e-4"
    assert lines[3] == "lora: train 1e-4, 10/100, loss 1.235, 9m 00s left"
    assert lines[-2] == "lora: evaluate, 1/9", "a phase has its line at once"
    assert lines[-1] == "lora: ok, accuracy 0.700 (0.600–0.800), trained in 3m 20s, 61.2 ms per answer"
    assert len(lines) == 3 + 10 + 1 + 1
    assert "\x1b" not in printed(out)


def test_on_a_terminal_each_arm_has_a_live_row_and_ends_as_a_result():
    out = screen(live=True)
    board = terminal.Board(began=0.0)
    board.apply(Phase("measure", method="measure"), 1.0)
    for event in EVENTS[:4]:
        board.apply(event, 10.0)
    out.print(terminal._rows(board, 20.0, out.width, 25))
    assert "━" in printed(out) and "40/120, loss 1.235" in printed(out)
    assert "20 s so far, about 8m 00s left by the plan" in printed(out) and "measure" not in printed(out)
    shown = screen(live=True)
    with terminal.listener(shown) as listen:
        for event in EVENTS:
            listen(event)
    assert "accuracy 0.700 (0.600–0.800)" in printed(shown).splitlines()[-1]
    assert "3 training rows" in printed(shown)


def test_the_time_left_comes_from_the_event_or_from_the_pace():
    board = terminal.Board(began=0.0)
    board.apply(Phase("train", method="full"), 100.0)
    event = Progress("train", 10, 40, "full")
    assert terminal.says(board.apply(event, 130.0)) == "train, 10/40, 1m 30s left"
    assert terminal.says(board.apply(replace(event, seconds_left=5), 130.0)) == "train, 10/40, 5.0 s left"
    assert terminal.says(board.apply(replace(event, phase="evaluate", done=5), 131.0)) == "evaluate, 5/40"
    late = board.apply(replace(event, phase="evaluate", done=10), 136.0)
    assert terminal.says(late) == "evaluate, 10/40, 30 s left"
    pulled = board.apply(replace(event, done=4.9, total=1238.2, unit="MB"), 137.0)
    assert terminal.says(pulled) == "train, 4.9/1,238.2 MB"


def test_no_work_goes_on_with_no_time_left():
    board = terminal.Board(began=0.0)
    board.apply(EVENTS[0], 0.0)
    out = screen(live=True)
    out.print(terminal._rows(board, 620.0, out.width, 25))
    assert "10m 20s so far, longer than the 8m 20s planned" in printed(out) and "0.0 s" not in printed(out)
    arm = board.apply(Progress("train", 119, 120, "lora", seconds_left=0.01), 620.0)
    assert terminal.says(arm) == "train, 119/120"


def test_what_is_measured_is_named_once():
    out = screen()
    with terminal.listener(out) as listen:
        listen(Phase("measure", "answers of lora", "measure"))
        listen(Progress("measure", 3, 9, "measure"))
    assert printed(out) == "measure: answers of lora\n"


def test_progress_of_a_command_without_arms_is_accepted():
    board = terminal.Board(began=0.0)
    board.apply(Phase("validate"), 1.0)
    assert terminal.says(board.arms[""]) == "validate"
    assert board.apply(Done({}), 2.0) is None


def test_the_markdown_report_is_a_pure_function_and_tells_everything():
    document = comparison()
    kept = copy.deepcopy(document)
    text = markdown.render(typed(document))
    assert text == markdown.render(typed(json.loads(json.dumps(document)))), (
        "a document read back gives the same report"
    )
    assert document == kept, "the document is not changed"
    for part in (
        "# The pick: lora (certified)", document["reason"], "$ riyaz compare train.jsonl --budget 25m",
        "16m 52s, estimated 16m 20s", "smollm2-135m", "134,515,008", "torch 2.13.0", "cores 2", "60 to validate on",
        "## Scores per slice (accuracy)", "4,884,480", "0.510", "macro F1 0.551",
        "first loss is the base model's, or the artifact's: held (in training 2.34568)",
        "eos in every row: held", "fits: NOT HELD (rows 40, failed 3)",
        "examples in the prompt: 8", "* **full** failed: out of memory at step 3", "a little optimistic",
        "because the budget was too short: lora",
    ):  # fmt: skip
        assert part in text, part
    assert not text.endswith("\n\n") and "None" not in text and "nan" not in text


def test_markdown_tables_have_as_many_cells_in_every_row():
    text = markdown.render(typed(comparison()))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) == 3
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table


def test_text_from_files_cannot_break_the_markdown():
    hostile = "<script>alert(1)</script> | `x` [a](b) *b* __c__\n# d"
    document = comparison(
        reason=hostile, command="riyaz compare ```x``` <y>", data={"instruction": hostile, "notes": [hostile]}
    )
    document["arms"][1]["slices"] = {hostile: {"score": 0.5}}
    text = markdown.render(typed(document))
    fenced = text[text.index("````console") : text.index("````\n\n")]
    assert "```x``` <y>" in fenced
    rest = text.replace(fenced, "")
    assert "<script" not in rest and "[a](b)" not in rest and "\n# d" not in rest
    assert len(re.findall(r"^# ", text, flags=re.M)) == 1


def test_lists_of_records_become_tables_and_empty_values_are_left_out():
    document = comparison()
    document["arms"][3]["chosen"] = {
        "rate": 0.0005, "nothing": {}, "none": None,
        "search": [{"steps": 8, "losses": {"0.001": 2.25, "a|b": 1.5}}, {"steps": 16, "losses": {"0.001": 1.75}}],
    }  # fmt: skip
    text = markdown.render(typed(document))
    rows = ["| steps | 0.001 | a\\|b |", "|---|---:|---:|", "| 8 | 2.25 | 1.5 |", "| 16 | 1.75 | – |"]
    assert "\n".join(["* learning rate: 0.0005", "", "learning rates tried", "", *rows]) in text
    assert "nothing" not in text and "none" not in text


def test_the_labels_of_a_closed_set_take_one_line():
    document = comparison()
    document["data"]["labels"] = {f"label{i}": {"train": i, "test": 2} for i in range(77)}
    assert "* labels: 77, with 2 to 78 rows each" in markdown.render(typed(document)).splitlines()


def test_slices_show_their_rows_where_they_were_counted():
    document = comparison()
    document["arms"][0]["slices"] = {"rare": {"score": 0.25, "n": 8}}
    row = next(line for line in markdown.render(typed(document)).splitlines() if line.startswith("| rare"))
    assert row == "| rare | 0.500 | 0.250 (8) | 0.100 |"


LOOKED = {
    "k": 5, "rows": 30, "grounded_rows": 16, "closed_book": 0.0, "retrieved": 0.2112, "grounded_nats": 1.2,
    "recall": {"10": 1.0, "1": 0.9134, "3": 0.95, "5": 0.9967}, "mrr": 0.9466, "named_rows": 120, "oracle": 0.3899,
}  # fmt: skip
SEEDS = [{"seed": 0, "score": 0.6933}, {"seed": 1, "score": 0.7}]
DATA_CURVE = [
    {"rows": 1240, "score": 0.6933, "ci_low": 0.639, "ci_high": 0.743},
    {"rows": 310, "score": 0.4, "ci_low": 0.35, "ci_high": 0.45},
]


def with_findings(**retrieval) -> dict:
    """The comparison in which few_shot stands for an arm that retrieves, with seeds and a data curve."""
    document = comparison(data_curve=DATA_CURVE, curve_method="lora")
    document["arms"][2]["retrieval"] = retrieval
    document["arms"][3]["seeds"] = SEEDS
    return document


@pytest.mark.parametrize(
    ("retrieval", "said"),
    [
        (LOOKED, ", 5 passages: recall@1 0.91 @5 1.00, MRR 0.95 (120 rows); closed book 0.00, retrieved 0.21, "
                 "right documents 0.39 (30 rows); passages make the answer 1.20 nats/token likelier (16 rows)"),
        (LOOKED | {"k": 1}, ", 1 passage: recall@1 0.91, MRR 0.95 (120 rows); closed book 0.00, retrieved 0.21, "
                 "right documents 0.39 (30 rows); passages make the answer 1.20 nats/token likelier (16 rows)"),
        ({"k": 4, "rows": 1, "closed_book": 0, "retrieved": 1, "grounded_nats": None},
         ", 4 passages: closed book 0.00, retrieved 1.00 (1 row)"),
        ({"k": 5, "recall": {"3": 0.5}, "grounded_nats": -0.3},
         ", 5 passages: recall@3 0.50; passages make the answer 0.30 nats/token less likely"),
        ({"k": 5, "mrr": 0.5, "recall": None, "closed_book": math.nan}, ", 5 passages: MRR 0.50"),
    ],
)  # fmt: skip
def test_the_terminal_says_in_one_line_what_retrieval_did(retrieval, said):
    out = screen(300)
    terminal.print_comparison(typed(with_findings(**retrieval)), out)
    assert [line for line in printed(out).splitlines() if line.startswith("retrieval")] == [
        f"retrieval  few_shot{said}"
    ]


def test_the_terminal_says_seeds_and_data_curve_in_one_line_each():
    out = screen()
    terminal.print_comparison(typed(with_findings(**LOOKED)), out)
    lines = printed(out).splitlines()
    assert "seeds  lora: 0.693 with seed 0, 0.700 with seed 1" in lines
    assert "more rows  lora: 0.400 on 310, 0.693 on 1,240 training rows" in lines
    assert max(map(len, lines)) <= 100


def test_the_markdown_report_has_tables_of_retrieval_and_data_curve_and_a_line_of_seeds():
    text = markdown.render(typed(with_findings(**LOOKED)))
    for lines in (
        ["## Retrieval", "",
         "| method | rows | passages | recall@1 | recall@3 | recall@5 | recall@10 | MRR | closed book | retrieved "
         "| right documents | grounded, nats |",
         "|---|" + "---:|" * 11,
         "| few_shot | 30 | 5 | 0.913 | 0.950 | 0.997 | 1.000 | 0.947 | 0.000 | 0.211 | 0.390 | +1.200 |"],
        ["## Would more rows help?", "", "| training rows | accuracy | 95 % interval |", "|---:|---:|---:|",
         "| 310 | 0.400 | 0.350–0.450 |", "| 1,240 | 0.693 | 0.639–0.743 |"],
        ["* **lora** scored 0.693 with seed 0, 0.700 with seed 1"],
    ):  # fmt: skip
        assert "\n".join(["", *lines, ""]) in text
    partial = markdown.render(typed(with_findings(k=4, rows=30, closed_book=0.0, retrieved=0.5, grounded_nats=None)))
    assert "| few_shot | 30 | 4 | – | 0.000 | 0.500 | – | – |" in partial.splitlines()


@pytest.mark.parametrize(
    "known",
    [{}, {"data_curve": []}, {"data_curve": None}, {"data_curve": DATA_CURVE[:1]}],
)
@pytest.mark.parametrize("empty", [{}, {"retrieval": None, "seeds": []}, {"retrieval": None, "seeds": None}])
def test_a_comparison_without_findings_says_nothing_of_them(known, empty):
    document = comparison(**known)
    for made in document["arms"]:
        made |= empty
    out = screen()
    terminal.print_comparison(typed(document), out)
    assert markdown.render(typed(document)) == markdown.render(typed(comparison()))
    assert not re.search("^(retrieval|seeds|more rows)  ", printed(out), flags=re.M)


def test_forgetting_has_its_standard_error():
    document = comparison()
    document["arms"][3] |= {"forgetting_nats": 0.1034, "forgetting_se": 0.0123}
    for report in (markdown.render(typed(document)), html.render(typed(document), {})):
        assert "+0.103 ± 0.012" in report
    assert words.forgetting(typed(document).arms[1]) == "0", "no weights were changed"


def test_a_busy_machine_and_a_latency_that_was_measured_again_are_said():
    document = comparison()
    document["arms"][3] |= {
        "cpu_waited": 0.387, "remeasured": {"planned": 50.2, "first": 24402.1, "again": 151.2}, "ms_per_answer": 151.2,
    }  # fmt: skip
    document["arms"][2]["cpu_waited"] = 0.1
    out = screen(150)
    terminal.print_comparison(typed(document), out)
    busy = "the machine was busy: lora got 61 % of the CPU time it asked for"
    assert f"load  {busy}" in printed(out).splitlines()
    again = "ms/answer was 24,402.1 at first and 151.2 when measured again; 50.2 were planned"
    assert f"latency  lora: {again}" in printed(out).splitlines()
    for report in (markdown.render(typed(document)), html.render(typed(document), {})):
        assert again in report and f"T{busy[1:]}. Times measured then are longer" in report
    document["arms"][3]["remeasured"] |= {"again": 150.0}
    document["arms"][2]["cpu_waited"] = 0.52
    out = screen(150)
    terminal.print_comparison(typed(document), out)
    assert "ms/answer was 24,402.1 at first and 150.0 when measured again\n" in printed(out), "within 3 × now"
    busy = "the machine was busy: lora got 61 %, few_shot got 48 % of the CPU time they asked for"
    assert f"load  {busy}" in printed(out).splitlines()


FLIPS = {"rows": 8, "answers": 1, "scores": 0}


def test_answers_that_differ_alone_are_said_in_all_reports():
    document = comparison()
    document["arms"][2]["batch_flips"] = document["arms"][1]["batch_flips"] = FLIPS | {"answers": 0}
    out = screen()
    terminal.print_comparison(typed(document), out)
    assert "alone  few_shot, zero_shot: all 8 answers are those in a batch" in printed(out).splitlines()
    document["arms"][3]["batch_flips"] = FLIPS
    out = screen()
    terminal.print_comparison(typed(document), out)
    assert [line for line in printed(out).splitlines() if line.startswith("alone")] == [
        "alone  lora: 1 of 8 answers differ from those in a batch, 0 scores; few_shot, zero_shot: none of 8"
    ]
    assert "tie" not in printed(out)
    document["arms"][3] |= {"alone": True}
    document["arms"][2] |= {"alone": True}
    out = screen()
    terminal.print_comparison(typed(document), out)
    assert "alone  ties were decided on answers given one at a time: lora and few_shot" in printed(out).splitlines()
    for report in (markdown.render(typed(document)), html.render(typed(document), {})):
        assert "1 of 8, 0 scores" in report and "0 of 8, 0 scores" in report
        assert "Ties were decided on answers given one at a time: lora and few" in report


def test_text_in_findings_cannot_break_the_reports():
    document, _ = fake_page.attacked()
    for made, text in zip(document["arms"], fake_page.ATTACKS[-10:], strict=True):
        made |= {
            "status": "cut",
            "reason": text,
            "seeds": SEEDS,
            "retrieval": LOOKED | {"recall": {text: 0.5, "1": 0.5}},
        }
    document |= {"data_curve": DATA_CURVE, "curve_method": "lora"}
    out = screen(1000)
    terminal.print_comparison(typed(document), out)
    told = printed(out)
    lines = [line for line in told.splitlines() if re.match("(retrieval|seeds|more rows)  ", line)]
    assert len(lines) == 2 * len(document["arms"]) + 1, "one line each"
    assert "[x](javascript:window.pwned=1)" in told, "brackets are no markup of rich"
    report = markdown.render(typed(document))
    start = report.index("## Retrieval")
    table = report[start : report.index("## How it was measured")]
    assert "<script" not in table and "<img" not in table and "[x](" not in table
    assert all(line.startswith("* **") for line in report.splitlines() if " scored " in line)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"decision": "undecided", "rows_needed": [400, 8000]}, "The test is too small to separate the leaders."),
        ({"arms": [arm("nearest", score=0.5, ci_low=0.4, ci_high=0.6, n_test=60)]}, "60 test rows are few"),
    ],
)
def test_caveats_follow_from_the_document(known, expected):
    assert expected in " ".join(markdown.caveats(typed(comparison(**known))))
    assert expected not in " ".join(markdown.caveats(typed(comparison())))


def test_a_dry_run_prints_plan_and_estimate():
    seconds = {"start": 6, "fit": 4, "search": 99, "train": 189, "evaluate": 196}
    arms = [
        ArmPlan("nearest", {"start": 6, "fit": 0.4, "evaluate": 0.3}),
        ArmPlan("lora", seconds, steps=132, recipe_steps=150, learning_rates=(2e-4, 5e-4)),
        ArmPlan("full", recipe_steps=120, skipped="no time for 8 steps"),
    ]
    out = screen()
    terminal.print_plan(arms, {"seconds": 500, "peak_rss_mb": 1900, "disk_mb": 320}, out)
    lines = [re.split(r"  +", line.strip()) for line in printed(out).splitlines()]
    assert lines[1] == ["nearest", "6.4 s", "–", "–", "0.3 s"]
    assert lines[2] == ["lora", "10 s", "1m 39s", "3m 09s", "3m 16s", "132/150", "0.0002 0.0005"]
    assert lines[3] == ["full", "–", "–", "–", "–", "0/120"]
    assert lines[4] == ["skipped", "full: no time for 8 steps"]
    assert lines[5] == ["estimate: 8m 20s, 1,900 MB of memory, 320 MB of disk"]


def test_one_targets_scores_are_printed_with_extras_slices_and_latency():
    out = screen()
    scored = TargetScores(
        "lora", FileFacts("test.jsonl", "ab", "text,label"), "closed", "accuracy", "", 0.7, 0.6, 0.8, 300,
        {"macro_f1": 0.65, "answer_log_probability": -3.2}, {"rare": SliceScore(0.25, 8)}, 61.2, 210.0, 900.0,
    )  # fmt: skip
    terminal.print_scores(scored, out)
    lines = [" ".join(line.split()) for line in printed(out).splitlines()]
    assert lines == [
        "accuracy 0.700 (0.600–0.800, 95 %) on 300 rows", "macro F1 0.650", "answer log p -3.200",
        "ms per answer 61.2", "slice rare 0.250 (8)",
    ]  # fmt: skip


def test_a_terminal_is_given_nothing_to_obey() -> None:
    out = io.StringIO()
    PipeConsole(file=out, force_terminal=True, color_system=None, markup=False, width=80).print(
        Text.assemble("label \x1b]0;title\x07\x9b2J", ("answer\u202e", "bold")), soft_wrap=True
    )
    assert out.getvalue() == "label ]0;title2Janswer[U+202E]\n"
