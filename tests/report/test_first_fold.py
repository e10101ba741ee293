"""The top of a comparison's page, a closed set label by label, the rows that are shown, and overfitting."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_page
import pytest
from fake_comparison import arm, comparison, typed

from riyaz.errors import RiyazError
from riyaz.metrics.scores import macro_f1
from riyaz.report import write
from riyaz.report.comparison import examples, extra_findings, first_fold, html, labels, markdown
from riyaz.report.names import check_name, key_name
from riyaz.results import Answer, Comparison

LABELS = ("booking", "complaint", "quote")


def closed(**known: Any) -> dict[str, Any]:
    """A comparison on a closed set of three labels."""
    document = comparison(**known)
    document["data"] = {
        "task": "closed", "metric": "accuracy", "rows": {"train": 240, "valid": 60, "test": 300},
        "files": {"train": {"path": "examples/workshop/train.csv", "sha256": "ab" * 32, "format": "text,label"}},
        "labels": {label: {"train": 80, "test": 100} for label in LABELS},
    }  # fmt: skip
    return document


def answered(seed: int, share: float, rows: int = 60) -> list[Answer]:
    """Rows of a closed set of which a method gets about `share` right; now and then it writes no label."""
    dice = random.Random(seed)
    found = []
    for place in range(rows):
        right = LABELS[place % 3]
        said = right if dice.random() < share else dice.choice([*LABELS, "no label"])
        found.append(Answer(f"test.csv:{place + 1}", f"Question {place}", [right], said, float(said == right)))
    return found


def top(document: dict[str, Any]) -> str:
    return fake_page.Page(first_fold.head(typed(document))).text


def test_the_first_fold_says_what_was_compared_and_what_came_out() -> None:
    document = closed(date="2026-11-06")
    document["pairs"] = [{"arms": ["nearest", "lora"], "difference": -0.1167, "low": -0.18, "high": -0.05,
                          "p_value": 0.001, "test": "mcnemar"}]  # fmt: skip
    said = top(document)
    for part in (
        "The pick: lora", "certified", "workshop/train.csv · 6 November 2026", "smollm2-135m",
        "rows: 240 to train on, 60 to validate on, 300 to test on",
        "lora (accuracy 0.693 on 300 test rows) is picked; runner-up nearest. ",
        "lead over nearest +0.117 95 %: +0.050 to +0.180",
        "cost of 1,000 answers 1m 01s of this CPU, 61.2 ms each", "More rows help.",
    ):  # fmt: skip
        assert part in said, (part, said)
    leading = [said.index(f"{method} ") for method in ("lora the pick 0.693", "nearest 0.577", "few_shot 0.413")]
    assert leading == sorted(leading) and "zero_shot" not in said, "the three highest scores"
    assert said.count("0.639–0.743") == 2, "beside the leader and in its tile"


@pytest.mark.parametrize("method", ["nearest", "zero_shot", "few_shot", "lora"])
def test_no_tile_holds_a_dash(method: str) -> None:
    """A method without training has no time to make it, one without a pair no lead; such tiles are left out."""
    for other in (None, "few_shot", "full"):
        page = first_fold.head(typed(closed(pick=method, runner_up=other)))
        tiles = page.partition('<dl class="tiles">')[2]
        assert ">–<" not in tiles and ": –" not in tiles and tiles.count("<dt>") >= 3


def test_a_pick_below_the_third_place_is_shown_too() -> None:
    arms = [arm(name, score=score, ci_low=score - 0.05, ci_high=score + 0.05)
            for name, score in (("a", 0.9), ("b", 0.89), ("c", 0.88), ("d", 0.87), ("e", 0.5))]  # fmt: skip
    said = top(closed(arms=arms, pick="d", runner_up="a", decision="tie"))
    assert all(f"{name} 0.8" in said or f"{name} 0.9" in said for name in "abc") and "d the pick 0.870" in said
    assert "e 0.500" not in said and "lead over a -0.030" in said


def test_only_the_first_sentence_leads_and_the_rest_stands_below() -> None:
    reason = "lora (accuracy 0.6 on 9 rows) is picked. A margin of 0.021 would pick full. The score is optimistic."
    made = first_fold.head(typed(closed(reason=reason)))
    assert '<p class="lead">lora (accuracy 0.6 on 9 rows) is picked.</p>' in made
    assert '<p class="rest">A margin of 0.021 would pick full. The score is optimistic.</p>' in made


def test_the_next_commands_stand_in_the_page() -> None:
    page = fake_page.Page(html.render(typed(closed()), {}, fake_page.COMMANDS))
    for what, line in fake_page.COMMANDS:
        assert f"{what} {line}" in page.text
    assert "What to do next" not in fake_page.Page(html.render(typed(closed()), {})).text


def test_an_edited_command_that_no_shell_reads_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(json.dumps(closed(command="riyaz compare 'half")))
    text = fake_page.Page(write.write(tmp_path)[1].read_text()).text
    assert f"riyaz chat {tmp_path}/lora" in text and "--more" not in text


def test_the_f1_of_each_label_is_that_of_macro_f1() -> None:
    rows = answered(3, 0.6)
    scores = labels.label_scores(labels.outcomes(rows, LABELS))
    assert [score.label for score in scores] == list(LABELS) and sum(score.rows for score in scores) == 60
    expected = macro_f1([row.prediction for row in rows], [row.answers for row in rows])
    assert sum(score.f1 for score in scores) / 3 == pytest.approx(expected)
    both = Answer("t:1", "p", ["quote", " booking"], "booking ", 1.0)
    assert labels.outcomes([both], LABELS) == [("booking", "booking")], "of two right labels the answered one counts"


def test_a_closed_set_has_a_matrix_of_the_pick_and_f1_of_both() -> None:
    answers = {"lora": answered(1, 0.8), "nearest": answered(2, 0.5)}
    made = labels.section(typed(closed()), answers)
    assert made is not None
    page = fake_page.Page(made)
    assert page.problems == [] and page.text.index("Test rows of lora") < page.text.index("The same for nearest")
    right = sum(row.prediction == row.answers[0] == "booking" for row in answers["lora"])
    first = made.partition("<tbody>")[2].partition("</tr>")[0]
    assert first.startswith(f'<tr><th scope="row">booking</th><td class="figure"><b>{right}</b></td>')
    assert "(another text)" in page.text and "F1 of lora" in page.text and "F1 of nearest" in page.text
    assert labels.section(typed(closed()), {}) is None
    document = closed()
    document["data"]["task"] = "short"
    assert labels.section(typed(document), answers) is None


def test_many_labels_are_a_list_of_the_most_frequent_confusions() -> None:
    names = [f"label {place:02}" for place in range(40)]
    document = closed()
    document["data"]["labels"] = {name: {"test": 2} for name in names}
    rows = [Answer(f"t:{i}", "p", [names[i % 40]], names[0] if i % 40 < 5 else names[i % 40], 0.0) for i in range(120)]
    page = fake_page.Page(labels.section(typed(document), {"lora": rows}) or "")
    assert "Labels that lora confuses most often" in page.text and "3 label 01 label 00" in page.text
    assert page.text.count("label 04") == 2, "once as a confusion and once with its F1"
    assert [tag for tag, _ in page.elements].count("details") == 1, "the long table is closed"


def test_five_disagreements_of_pick_and_runner_up_stand_in_the_page_and_the_rest_is_folded() -> None:
    rows = answered(1, 0.8)
    other = [Answer(row.where, row.prompt, row.answers, "x", float(place % 2)) for place, row in enumerate(rows)]
    page = html.render(typed(closed()), {"lora": rows, "nearest": other})
    shown = page.partition('<ol class="rows">')[2].partition("</ol>")[0]
    assert shown.count('<p class="prompt">') == examples.SHOWN
    data = json.loads(fake_page.Page(page).blocks["application/json"])
    assert data["methods"][data["pick"]]["name"] == "lora" and data["methods"][data["next"]]["name"] == "nearest"
    telling = [row for row in data["rows"] if (row["said"][0][1] >= 0.5) != (row["said"][1][1] >= 0.5)]
    prompts = [one.partition("</p>")[0] for one in shown.split('<p class="prompt">')[1:]]
    assert set(prompts) <= {row["prompt"] for row in telling}
    ahead = [row["prompt"] for row in telling if row["said"][data["pick"]][1] >= 0.5]
    assert [prompt in ahead for prompt in prompts] == [True, False] * 2 + [True], "by turns for one and the other"
    assert '<details id="browser" hidden><summary>All 60 rows, with filters and search</summary>' in page


def test_where_two_never_disagree_other_disagreements_are_shown_or_none() -> None:
    same = answered(1, 0.8)
    few = [Answer(row.where, row.prompt, row.answers, "x", 0.0) for row in same]
    three = fake_page.Page(html.render(typed(closed()), {"lora": same, "nearest": same, "few_shot": few})).text
    assert "lora is right and nearest wrong on 0 of 60 rows" in three and three.count("Accepted: ") == 5
    two = fake_page.Page(html.render(typed(closed()), {"lora": same, "nearest": same})).text
    assert "No methods disagree" in two and "Accepted: " not in two


def test_of_likelihoods_none_is_called_right() -> None:
    document = closed()
    for each in document["arms"]:
        each |= {"metric": "nats", "score": -1.5, "ci_low": -1.6, "ci_high": -1.4} if each["score"] is not None else {}
    near = [replace(row, score=-1.0 - place % 2) for place, row in enumerate(answered(1, 0.8))]
    far = [replace(row, score=-1.9) for row in near]
    page = fake_page.Page(html.render(typed(document), {"lora": near, "nearest": far})).text
    assert "lora is likelier than the mean and nearest is not on 30 of 60 rows, nearest is and lora is not on 0" in page
    assert "The mean of all arms is -1.5 nats per character." in page and "only lora is likelier than the mean" in page
    assert not any(word in page for word in ("is right", "is wrong", "counts as right"))
    alike = fake_page.Page(html.render(typed(document), {"lora": far, "nearest": far})).text
    assert "on every row all are likelier than the mean or none is" in alike


def curve(*valid: float, fall: float = 0.3) -> list[dict[str, float]]:
    """One validation every ten steps, and a training loss that falls by `fall` at each of them."""
    return [
        {"step": 10 * (place + 1), "loss": 2.0 - fall * place, "valid_loss": loss} for place, loss in enumerate(valid)
    ]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (curve(0.9, 0.6, 0.5, 0.8), True), (curve(0.9, 0.6, 0.5, 0.52), False), (curve(0.9, 0.6, 0.5, 0.4), False),
        (curve(0.9, 0.6, 0.5, 0.8, fall=-0.1), False), (curve(0.9), False),
        ([{"step": 1, "loss": 1.0}], False), ([], False),
    ],
)  # fmt: skip
def test_overfitting_is_said_where_the_curves_show_it(points: list[dict[str, float]], said: bool) -> None:
    document = closed()
    document["arms"][3] |= {"curve": points, "chosen": {"best_step": 30}}
    line = (
        "lora overfitted: its validation loss rose from 0.50 at step 30 to 0.80 at step 40 while its training loss "
        "fell: it began to learn the training rows by heart. The weights of step 30 are kept."
    )
    assert extra_findings.overfitting_lines(typed(document).arms) == ([line] if said else [])
    assert (line in fake_page.Page(html.render(typed(document), {})).text) == said
    assert (line in markdown.render(typed(document))) == said


def test_control_characters_and_overrides_are_named_in_the_browser_and_in_markdown() -> None:
    bad = "a\x00b\u202ec\x1b[2J\u2066"
    shown = "a[U+0000]b[U+202E]c[U+001B][2J[U+2066]"
    row = Answer(bad, bad, [bad], bad, 0.0, bad, citations=[{"title": bad, "start": 1, "end": 2}])
    found = examples.browser_data(typed(closed()), {"lora": [row]})["rows"][0]
    assert found["where"] == found["prompt"] == found["slice"] == found["answers"][0] == shown
    assert found["said"][0] == [shown, 0.0, [{"title": shown, "start": 1, "end": 2}]]
    text = markdown.render(typed(closed(reason=f"{bad}. More", command=f"riyaz compare {bad}")))
    assert f"$ riyaz compare {shown}" in text and shown.replace("[", "\\[").replace("]", "\\]") in text
    assert not set(bad) & set(text) - set("abc[2J")


def test_keys_are_written_in_words() -> None:
    assert [key_name(key) for key in ("memory_total_mb", "learning_rate", "k")] == [
        "memory in MB", "learning rate", "examples in the prompt"]  # fmt: skip
    assert check_name("one_bos") == "begins with one begin-of-text token" and check_name("new_check") == "new check"
    document = closed(hardware={"cpu": "A CPU", "memory_total_mb": 8192})
    document["arms"][3]["checks"] = {"one_bos": {"ok": True, "rows": 4, "failed": 0}}
    for text in (fake_page.Page(html.render(typed(document), {})).text, markdown.render(typed(document))):
        assert "memory in MB" in text and "begins with one begin-of-text token" in text
        assert not any(raw in text for raw in ("one bos", "one_bos", "memory total", "memory_total"))


def test_a_comparison_of_version_0_1_says_nothing_of_its_methods(tmp_path: Path) -> None:
    curve = [{"rows": 75, "score": 0.3}, {"rows": 300, "score": 0.4}]
    document = comparison(data_curve=curve)
    for made in document["arms"]:
        made.pop("about")
    (tmp_path / "compare.json").write_text(json.dumps(document))
    read = Comparison.read(tmp_path / "compare.json")
    assert read.curve_method == "lora" and "Scores of lora trained on parts" in markdown.render(read)
    page = fake_page.Page(html.render(read, {})).text
    assert "This report has no description of this method." in page
    assert "without the base model" not in page and "a whole model" not in page


@pytest.mark.parametrize("about", [{"colour": 16}, {"colour": "1"}, {"mark": "$x$"}, {"mark": ""}])
def test_a_colour_and_a_mark_are_those_of_the_page(about: dict[str, Any]) -> None:
    document = comparison()
    document["arms"][3]["about"] |= about
    with pytest.raises(RiyazError, match=f"arms\\[3\\].about.{next(iter(about))}"):
        typed(document)
