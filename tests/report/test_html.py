"""report.html as a pure function of fabricated results: well-formed, complete, true to its figures, and safe."""

import base64
import hashlib
import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import replace

import fake_page
import pytest
from fake_comparison import arm, comparison, typed, typed_arm

from riyaz.errors import RiyazError
from riyaz.methods import lora
from riyaz.report.comparison import html, pictures
from riyaz.report.comparison.arms import Mark, beaten_by, beaten_lines, best_for, training
from riyaz.report.media import page, svg
from riyaz.report.media.markup import Markup, clean, element, json_block
from riyaz.report.words import number, signed

CLEAN_TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "a", "header", "p", "b", "h1", "h2", "h3", "span", "dl",
    "div", "dt", "dd", "nav", "main", "section", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "ol",
    "li", "figure", "figcaption", "details", "summary", "noscript", "form", "label", "select", "option", "input",
    "button", "mark", "pre", "code", "footer", "script", "svg", "g", "path", "defs", "clippath", "rect", "use", "text",
    "line", "circle",
}  # fmt: skip


@pytest.fixture(scope="module")
def rich() -> fake_page.Page:
    document = fake_page.rich()
    return fake_page.Page(html.render(typed(document), fake_page.answers(document, 40), fake_page.COMMANDS))


@pytest.fixture(scope="module")
def attacked() -> str:
    document, rows = fake_page.attacked()
    return html.render(typed(document), fake_page.typed_rows(rows))


def policy(page: fake_page.Page) -> str:
    return next(a["content"] or "" for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")


def test_the_page_is_well_formed_and_its_ids_are_its_own(rich):
    assert rich.problems == []
    ids = [a["id"] for _, a in rich.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in rich.elements:
        for key in ("href", "aria-labelledby"):
            target = attributes.get(key) or ""
            if target.startswith("#") or (key == "aria-labelledby" and target):
                assert target.removeprefix("#") in ids, (tag, target)
        for target in re.findall(r"url\(#(.*?)\)", " ".join(filter(None, attributes.values()))):
            assert target in ids


def test_every_part_stands_there_in_its_order(rich):
    sections = [a["id"] for tag, a in rich.elements if tag == "section"]
    order = "next arms cost training slices retrieval more-rows examples data pairs details made caveats"
    assert sections == order.split()
    for said in (
        *comparison()["reason"].split(". "), "May I return it?", "riyaz compare train.jsonl --budget 25m", "2.13.0",
        "A CPU", "ab" * 32, "training rows that repeat a prompt", "failing failed: out of memory at step 3",
        "No clear winner yet: rag_lora leads",
    ):  # fmt: skip
        assert said in rich.text, said
    learned = [a for tag, a in rich.elements if tag == "mark"]
    assert len(learned) == 6, "five rows and the key"


def test_every_figure_is_that_of_the_document(rich):
    document = fake_page.rich()
    for made in document["arms"][:-1]:
        for shown in (
            number(made["score"], 3), f"{made['ci_low']:.3f}–{made['ci_high']:.3f}",
            f"{number(made['peak_rss_mb'])} MB", signed(made["forgetting_nats"]),
            *(number(entry["score"], 3) for entry in made["slices"].values()),
        ):  # fmt: skip
            assert shown in rich.text, (made["method"], shown)
    for shown in (
        "0.711",
        "0.951",
        "0.802",
        "0.182",
        "0.872",
        "+1.842",
        "1,310 ms",
        "<0.1 ms",
        "4.9 M parameters",
    ):
        assert shown in rich.text or (signed(0.1234) in rich.text and shown == "0.1234"), shown
    for point in document["data_curve"]:
        assert number(point["score"], 3) in rich.text
    data = json.loads(rich.blocks["application/json"])
    rows = fake_page.rows(document, 40)
    assert len(data["rows"]) == 40
    for place, method in enumerate(data["methods"]):
        for shown_row, row in zip(data["rows"], rows[method["name"]], strict=True):
            assert shown_row["said"][place] == [row["prediction"], row["score"], row.get("citations", [])]


def test_nothing_is_fetched_and_only_its_own_style_and_script_run(rich):
    for tag, attributes in rich.elements:
        assert tag in CLEAN_TAGS, tag
        assert not {"src", "srcset", "action", "style", "background", "data", "xlink:href"} & set(attributes), (
            attributes
        )
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("#") or attributes["href"] == "data:,"
    assert "url(http" not in rich.blocks["style"] and "@import" not in rich.blocks["style"]
    assert "fetch" not in rich.blocks["script"] and "innerHTML" not in rich.blocks["script"]
    said = policy(rich)
    assert said.startswith("default-src 'none'; ") and "unsafe" not in said
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(rich.blocks[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in said


def test_text_from_rows_models_and_documents_stays_text(attacked, rich):
    page = fake_page.Page(attacked)
    assert page.problems == []
    assert {tag for tag, _ in page.elements} <= CLEAN_TAGS
    names = {name for _, attributes in page.elements for name in attributes}
    known = {name for _, attributes in rich.elements for name in attributes}
    assert names <= known, names - known
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert sum(tag == "meta" for tag, _ in page.elements) == 5
    for text in (fake_page.ATTACKS[0], fake_page.ATTACKS[6], fake_page.ATTACKS[9]):
        assert text in page.text, "shown as it is"
    block = page.blocks["application/json"]
    assert not set("<>&\u2028\u2029") & set(block) and block.isascii()
    rows = json.loads(block)["rows"]
    assert [row["prompt"] for row in rows] == list(map(clean, fake_page.ATTACKS)), "page.js gets every text"
    for sign in ("\x00", "\\u0000", "\u202e", "\\u202e", "\ud800", "\\ud800"):
        assert sign not in attacked, "neither in the page nor in its JSON"
    assert "[U+0000]" in page.text and "[U+202E]gnp.exe [U+D800]" in page.text and "[U+202E]" in block


def test_the_same_results_give_the_same_bytes():
    document = fake_page.rich()
    first = html.render(typed(document), fake_page.answers(document, 5))
    assert first == html.render(typed(json.loads(json.dumps(document))), fake_page.answers(document, 5))


@pytest.mark.parametrize(
    "document",
    [
        {"arms": [], "pick": None, "runner_up": None, "decision": "undecided", "reason": "none was run"},
        comparison(arms=[]),
        comparison(arms=[arm("lora", status="failed", metric=None, ms_per_answer=None)], pick=None),
        comparison(arms=[arm("lora", status="skipped", score=math.nan, ci_low=math.nan, ms_per_answer=math.inf)]),
        comparison(arms=[arm("nearest", score=1.0, ci_low=1.0, ci_high=1.0, ms_per_answer=0.0)]),
        comparison(arms=[arm("lora", score=0.5, slices={"a": {"score": 0.5}}) | {"curve": [], "seeds": []}]),
        comparison(
            arms=[arm("lora", score=0.5) | {"curve": [{"step": 0, "loss": 2.0}], "retrieval": {"k": 1, "mrr": 0.5}}]
        ),
        comparison(data_curve=[], data={}, hardware={}, versions={}, model=None, command="", seconds=None),
    ],
)
def test_empty_failed_and_partial_comparisons_are_pages_too(document):
    page = fake_page.Page(html.render(typed(document), {}))
    assert page.problems == []
    assert "examples" not in [a.get("id") for tag, a in page.elements if tag == "section"]
    assert "nan" not in page.text.lower() and "inf " not in page.text.lower()


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, which tells of the time that work takes, whatever else this machine does."""
    calls = itertools.count()
    sys.setprofile(lambda frame, event, argument: next(calls) if event == "call" else None)
    try:
        work()
    finally:
        sys.setprofile(None)
    return next(calls)


def test_two_thousand_rows_are_written_once_each_in_the_same_time():
    document = typed(fake_page.rich())
    rows = {count: fake_page.answers(fake_page.rich(), count) for count in (10, 200, 400, 2000)}
    page = fake_page.Page(html.render(document, rows[2000]))
    assert len(json.loads(page.blocks["application/json"])["rows"]) == 2000
    assert "Question 1999" not in page.text, "rows are made when they are looked at"
    none, half, whole = (calls_of(lambda count=count: html.render(document, rows[count])) for count in (10, 200, 400))
    assert whole - none < 2.2 * (half - none)


def test_folds_and_arms_that_answered_other_rows_are_joined_by_where_they_came_from():
    rows = {"nearest": [{"where": "a:1", "prompt": "p", "answers": ["x"], "prediction": "x", "score": 1.0}],
            "lora": [{"where": "a:2", "prompt": "q", "answers": ["y"], "prediction": "z", "score": math.nan},
                     {"where": "a:1", "prompt": "p", "answers": ["x"], "prediction": "first", "score": 0.0},
                     {"where": "a:1", "prompt": "p", "answers": ["x"], "prediction": "other seed", "score": 1.0}],
            "not an arm": [{"where": "a:9", "prompt": "", "answers": [], "prediction": "", "score": 0}]}  # fmt: skip
    page = fake_page.Page(html.render(typed(comparison()), fake_page.typed_rows(rows)))
    data = json.loads(page.blocks["application/json"])
    assert [method["name"] for method in data["methods"]] == ["lora", "nearest"], "best score first"
    assert [row["said"] for row in data["rows"]] == [
        [["z", None, []], None],
        [["first", 0.0, []], ["x", 1.0, []]],
    ]


def test_an_arm_is_beaten_only_by_one_that_is_no_worse_in_both():
    arms = [
        typed_arm(name, score=score, ms_per_answer=cost)
        for name, score, cost in (("a", 0.5, 10), ("b", 0.6, 20), ("c", 0.5, 20), ("d", 0.5, 10), ("e", None, 1))
    ]
    assert [better.method if (better := beaten_by(made, arms)) else None for made in arms] == [
        None,
        None,
        "b",
        None,
        None,
    ]
    assert best_for(replace(arms[2], about=lora.ABOUT), arms, None, "the pick").endswith("one for each task.")
    assert beaten_lines(arms) == ["Here b scores no less and answers no slower than c."]
    slow = [typed_arm(name, score=0.4, ms_per_answer=30) for name in ("x", "y", "z")]
    assert beaten_lines([arms[1], *slow]) == ["Here b scores no less and answers no slower than x, y and z."]
    zero = [typed_arm(name, score=0.0, ms_per_answer=cost) for name, cost in (("a", 10), ("b", 20))]
    assert "the best score" not in best_for(zero[0], zero, None, "the pick"), "where nothing works"
    assert "Here: the leader, the best score." in best_for(arms[1], arms, "b", "the leader")


def test_training_is_said_in_what_was_trained():
    assert training(typed_arm("zero_shot")) == "none"
    assert training(typed_arm("few_shot", search_seconds=12.2)) == "none; choosing the prompt took 12 s"
    assert training(typed_arm("lora", trainable_params=4_884_480, chosen={"steps": 60})) == "4.9 M parameters, 60 steps"


def test_the_quickest_arm_stands_apart_only_when_it_is_far_away():
    arms = [Mark(typed_arm(method), 0.5, cost) for method, cost in (("nearest", 0.04), ("lora", 90), ("full", 200))]
    assert [[mark.cost for mark in group] for group in pictures._apart(arms)] == [[0.04], [90, 200]]
    assert pictures._apart(arms[1:]) == [arms[1:]]
    assert pictures._apart(arms[:1]) == [arms[:1]]


def test_names_at_the_end_of_lines_keep_their_distance():
    assert svg.spread([10.0, 11.0, 50.0, 49.0], 15, 0, 60) == [10.0, 25.0, 60.0, 45.0]
    assert svg.spread([5.0, 40.0], 15, 0, 60) == [5.0, 40.0], "who stands well is left alone"


def test_pictures_are_drawn_in_the_colours_of_the_light_page():
    light = page.asset("media/page.css").partition("@media")[0]
    wanted = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light))
    named = {svg.INK: "ink", **{shade: name[6:-1] for shade, name in svg.NAMES.items() if shade != svg.INK}}
    assert named == {wanted[name]: name for name in named.values()}


def test_a_picture_is_a_figure_that_a_notebook_shows():
    drawn = svg.picture(lambda figure: figure.subplots().plot([0, 1], color=svg.colour(3)), 340, 200, "f", "A line")
    png = drawn.figure._repr_png_()
    assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24]) == (680, 400)
    assert drawn.figure.axes[0].lines[0].get_color() == svg.colour(3)


def test_pictures_follow_the_theme():
    document = fake_page.rich()
    drawn = pictures.quality_cost(typed(document).arms, "rag_lora", "exact match", 1040, "q")
    assert drawn is not None
    assert "style=" not in drawn
    assert {f"var(--c{i})" for i in range(8)} <= set(re.findall(r"var\(--c\d\)", drawn)), "every method its own colour"
    colours = set(re.findall(r"#[0-9a-f]{6}\b", drawn))
    assert not colours, colours
    assert ">rag_lora</text>" in drawn and 'role="img"' in drawn and "<title" in drawn


def test_a_picture_takes_names_that_are_no_characters():
    def draw(figure):
        figure.subplots().set_title(svg.label("half \ud800 a pair"))

    assert "half [U+D800] a pair" in svg.picture(draw, 200, 100, "p", "title")


def test_markup_escapes_whatever_is_not_markup():
    made = element("p", "<b>", Markup("<i>x</i>"), class_='a"b', data_x="'<", hidden=True, title=None)
    assert made == '<p class="a&quot;b" data-x="&#x27;&lt;" hidden>&lt;b&gt;<i>x</i></p>'
    assert json_block({"a": ["</script>", math.nan, "\u2028é"]}) == (
        '{"a":["\\u003c/script\\u003e",null,"\\u2028\\u00e9"]}'
    )


def test_the_verb_writes_both_reports_again_and_says_what_is_wrong_in_a_line(tmp_path, capsys):
    from riyaz.cli.main import main
    from riyaz.report.write import write

    document = fake_page.rich()
    (tmp_path / "compare.json").write_text(json.dumps(document))
    for method, rows in fake_page.rows(document, 3).items():
        for part in ("kept", "again"):
            folder = tmp_path / "arms" / method / part
            folder.mkdir(parents=True)
            said = [row | {"prediction": part} for row in rows]
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    assert main(["report", str(tmp_path), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)
    assert paths == {"markdown": str(tmp_path / "report.md"), "html": str(tmp_path / "report.html")}
    page = fake_page.Page((tmp_path / "report.html").read_text())
    data = json.loads(page.blocks["application/json"])
    assert {said[0] for row in data["rows"] for said in row["said"]} == {"kept"}, "the kept part answers first"
    assert "rag_lora" in (tmp_path / "report.md").read_text()
    for broken, text in (
        (tmp_path / "none", "there is no comparison here"),
        (tmp_path / "report.md", "this is a file"),
    ):
        with pytest.raises(RiyazError, match=text):
            write(broken)
    (tmp_path / "arms/lora/kept/predictions.jsonl").write_text(
        json.dumps(fake_page.rows(document, 1)["lora"][0]) + '\n{"whe'
    )
    with pytest.raises(RiyazError, match=r"predictions.jsonl:2: is damaged"):
        write(tmp_path)
    (tmp_path / "compare.json").write_text("[1")
    with pytest.raises(RiyazError, match=r"compare.json:1: is damaged"):
        write(tmp_path)
