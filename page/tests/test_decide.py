"""The screen Decide in a browser: questions, bars that follow the text, a file's rows, labels, what to label next."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from live_server import Running, running
from playwright.sync_api import expect
from test_screens import ATTACKS
from tiny_llama import write_hf_folder
from visits import Visit, drawn_until

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, WeightsPart
from riyaz.data.formats import load
from riyaz.data.questions import read_questions
from riyaz.data.task import Task
from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page

LABELS = ("billing", "delivery", "refund")
MOOD = {
    "name": "mood",
    "type": "score",
    "instructions": "How content?",
    "levels": [{"label": "low"}, {"label": "high"}],
}
FLAG = {"name": "flag", "type": "choice", "instructions": "Which?", "choices": [{"value": True}, {"value": "true"}]}
ROWS = 'text;label\n"my card; ""blue""";\n"the order\nis late";delivery\nmoney back;\n ;\n' + "".join(
    f"order {n} {'card' * (n % 3)};\n" for n in range(40)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and `words`, a classifier of a closed set."""
    import numpy as np

    from riyaz.classifiers.linear import Document, LinearClassifier

    made = tmp_path_factory.mktemp("decide")
    write_hf_folder(made / "tiny", context=512)
    task = Task("closed", LABELS, "accuracy", "Classify the text. Answer with one label.", "")
    tensors = {
        "bias": np.float32([0.3, 0, 0]), "words.idf": np.ones(3, np.float32),
        "words.weights": 2 * np.eye(3, dtype=np.float32),
    }  # fmt: skip
    head = LinearClassifier(Document(list(LABELS), 1.0, {"words": ["card", "order", "money"]}), tensors)
    (made / "files").mkdir()
    described = Artifact("linear", weights=WeightsPart("linear"), task=task)
    artifacts.write(made / "words", described, head.files(made / "files"))
    shutil.rmtree(made / "files")
    return made


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Running]:
    opener, page = Opener("fp32"), Page.of(place, "riyaz ui")
    for name in ("tiny", "words"):
        opener.serve(str(place / name))
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def opened(browser, served, model="words", **options) -> Visit:
    visit = Visit(browser, served, f"decide?model={model}", **options)
    expect(visit.page.locator(".answers section")).not_to_have_count(0)
    return visit


def drop(page, name: str, text: str | bytes, where: str = ".file-rows") -> None:
    content = text.encode() if isinstance(text, str) else text
    page.set_input_files(f"{where} input[type=file]", {"name": name, "mimeType": "", "buffer": content})


def assert_refused(visit: Visit, *statuses: str) -> None:
    """Nothing complained but the browser, of requests that were refused on purpose."""
    found = {re.findall(r"status of (\d+)", error)[0] for error in visit.errors}
    visit.errors.clear()
    assert found == set(statuses)
    visit.assert_quiet()


def answer_all(page, rows: int) -> None:
    page.get_by_role("button", name=re.compile("^Answer ")).click()
    expect(page.locator(".progress .under")).to_contain_text(f"{rows} of")


def downloaded(page, name: str) -> str:
    with page.expect_download() as found:
        page.get_by_role("button", name=name).click()
    return Path(found.value.path()).read_text()


def test_an_artifacts_own_question_is_offered_and_its_bars_follow_the_text(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        expect(page.get_by_text("words was trained on this question.")).to_be_visible()
        answer = page.locator(".answers section")
        for text, label in (("my card", "billing"), ("the order", "delivery"), ("money", "refund")):
            page.get_by_label("Text", exact=True).fill(text)
            expect(answer.locator("h3")).to_have_text(f"label: {label}")
            expect(answer.locator(".chosen .name")).to_have_text(label)
            question = {
                "type": "choice",
                "name": "label",
                "instructions": "x",
                "choices": [{"value": v} for v in LABELS],
            }
            told = served.post("/v1/decisions", {"model": "words", "input": text, "questions": [question]}).json()
            wanted = told["answers"][0]
            expect(answer.locator(".confidence")).to_have_text(f"{100 * wanted['confidence']:.1f} %")
            shown = [f"{100 * each['probability']:.1f} %" for each in wanted["probabilities"]]
            expect(answer.locator(".share")).to_have_text(shown)
        expect(answer).to_contain_text("answered by words, which was trained on it")
        expect(page.locator(".screen [role=status]").first).to_contain_text("label: refund,")
        page.get_by_label("Who answers").select_option("tiny")
        expect(page.get_by_text("answered without training by tiny").first).to_be_visible()
        expect(page.locator(".answers section")).to_have_count(2), "the examples stand in the place of another's own"
        visit.assert_quiet()


def test_the_latest_text_wins_and_earlier_requests_are_taken_back(browser, served):
    held, failed = [], []
    with opened(browser, served) as visit:
        page = visit.page
        page.on("requestfailed", lambda request: failed.append(request.post_data_json["input"]))
        page.route("**/v1/decisions", lambda route: held.append(route))
        page.get_by_label("Text", exact=True).fill("my card")
        drawn_until(page, lambda: held, "the first request")
        page.get_by_label("Text", exact=True).press_sequentially(" or the order", delay=10)
        drawn_until(page, lambda: len(held) > 1, "the second request")
        assert [route.request.post_data_json["input"] for route in held] == ["my card", "my card or the order"]
        assert failed == ["my card"], "one request for a pause, and the earlier one was taken back"
        held[1].continue_()
        expect(page.locator(".answers h3")).to_have_text("label: billing")
        visit.assert_quiet()


def test_questions_are_written_edited_and_downloaded(browser, served, tmp_path):
    with opened(browser, served) as visit:
        page = visit.page
        page.get_by_role("button", name="Add a question").click()
        assert page.evaluate("document.activeElement.closest('label').innerText").startswith("Name")
        page.keyboard.type("topic")
        page.get_by_role("combobox", name="Kind of answer").select_option("choice")
        page.get_by_label("What is asked about the text").fill("What is it about?")
        page.get_by_label("Choice 1", exact=True).fill("card")
        page.get_by_role("button", name="Keep the question").click()
        expect(page.get_by_role("alert")).to_contain_text("questions.1.choices: has 1 choices")
        page.get_by_label("Choice 2", exact=True).fill("order")
        page.get_by_label("What choice 2 stands for").fill("parcels")
        page.keyboard.press("Enter")
        refused = page.locator(".answers section").nth(1)
        expect(refused).to_contain_text("words was not trained on this question")
        page.get_by_role("button", name="Edit topic").click()
        page.get_by_label("Name").fill("subject")
        page.get_by_role("button", name="Keep the question").click()
        expect(page.locator(".cards h3").nth(1)).to_contain_text("subject")
        (tmp_path / "q.json").write_text(downloaded(page, "Download questions.json"))
        own, made = read_questions(tmp_path / "q.json")
        assert own.name == "label" and made.name == "subject" and made.choices[1].description == "parcels"
        page.get_by_role("button", name="Remove label").click()
        expect(page.locator(".cards li")).to_have_count(1)
        page.reload()
        expect(page.locator(".cards h3")).to_contain_text("subject"), "a person's questions stay"
        page.get_by_role("button", name="Its own question").click()
        expect(page.locator(".cards h3")).to_contain_text("label")
        assert_refused(visit, "400")


def test_questions_are_pasted_and_dropped_with_true_beside_its_text(browser, served, tmp_path):
    with opened(browser, served, "tiny") as visit:
        page = visit.page
        page.locator("summary", has_text="Paste questions").click()
        for wrong, says in (("{", "This is not JSON"), ("{}", "has no list"), ('[{"name": 1}]', "questions.0.type")):
            page.get_by_label("The text of a questions.json").fill(wrong)
            page.get_by_role("button", name="Ask these").click()
            expect(page.get_by_role("alert")).to_contain_text(says)
        page.get_by_label("The text of a questions.json").fill(json.dumps([MOOD, FLAG]))
        page.get_by_role("button", name="Ask these").click()
        expect(page.locator(".answers section")).to_have_count(2)
        expect(page.get_by_text("from 0 to 1")).to_be_visible()
        page.get_by_role("button", name="Edit flag").click()
        page.get_by_label("What is asked about the text").fill("Which one?")
        page.get_by_role("button", name="Keep the question").click()
        (tmp_path / "q.json").write_text(downloaded(page, "Download questions.json"))
        assert [each.value for each in read_questions(tmp_path / "q.json")[1].choices] == [True, "true"]
        drop(page, "questions.json", json.dumps({"questions": [MOOD]}), ".files")
        expect(page.locator(".answers section")).to_have_count(1)
        assert_refused(visit, "400")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "", "has no rows"), ("a.csv", "text\n", "has no rows"), ("a.csv", "a,a\n1,2\n", "Two columns"),
        ("a.csv", 'text\n"open\n', "is not closed"), ("a.csv", "text\na,b\n", "Row 1 has 2 cells"),
        ("a.csv", b"text\n\xff\xfe\n", "not text in UTF-8"), ("a.jsonl", '{"text": "a"}\nx\n', "Line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "Line 1 is no object"), ("a.jsonl", '{"n": 1}\n', "No column of a.jsonl holds texts"),
        ("a.csv", "text\n" + "a\n" * 10_001, "more than 10,000 rows"),
        ("a.jsonl", '{"text": "a"}\n' * 10_001, "more than 10,000 rows"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(browser, served, name, content, says):
    with opened(browser, served) as visit:
        drop(visit.page, name, content)
        expect(visit.page.get_by_role("alert")).to_contain_text(says)
        visit.assert_quiet()


def test_rows_are_answered_what_is_unsure_first_and_downloaded(browser, served, tmp_path):
    with opened(browser, served) as visit:
        page = visit.page
        drop(page, "rows.csv", ROWS)
        expect(page.get_by_text("rows.csv, 44 rows")).to_be_visible()
        answer_all(page, 43)
        expect(page.locator(".progress .under")).to_contain_text("1 cannot be")
        confidences = [
            float(text.split()[-2]) for text in page.locator(".decided tbody td:nth-child(3)").all_inner_texts()
        ]
        assert len(confidences) == 25 and confidences == sorted(confidences) and len(set(confidences)) > 1
        page.get_by_role("button", name="Rows after").click()
        expect(page.locator(".decided tbody tr")).to_have_count(19)
        expect(page.locator(".decided tbody tr").last).to_contain_text("has no text")
        table = list(csv.DictReader(downloaded(page, "Download the answers as CSV").splitlines(keepends=True)))
        lines = [json.loads(line) for line in downloaded(page, "as JSONL").splitlines()]
        assert [row["text"] for row in table[:2]] == ['my card; "blue"', "the order\nis late"]
        assert table[1]["label"] == "delivery", "a column of the file keeps its cells"
        assert table[0].keys() == {"text", "label", "said_label", "said_label_confidence"}
        assert len(table) == 44 and table[3]["said_label"] == "" and len(lines) == 43
        assert lines[0]["where"] == "rows.csv:1" and lines[0]["answers"]["label"]["trained"] is True
        for row, line in zip([each for each in table if each["text"].strip()], lines):
            question = {"type": "choice", "instructions": "x", "choices": [{"value": v} for v in LABELS]}
            told = served.post(
                "/v1/decisions", {"model": "words", "input": row["text"], "questions": [question]}
            ).json()
            said = line["answers"]["label"]
            assert row["said_label"] == said["answer"] == told["answers"][0]["choice"]
            assert said["confidence"] == pytest.approx(told["answers"][0]["confidence"], abs=1e-6)
            assert float(row["said_label_confidence"]) == said["confidence"]
        visit.assert_quiet()


def test_answering_stops_goes_on_and_begins_anew_with_other_questions(browser, served):
    asked = []

    def slowly(route):
        asked.append(route.request.post_data_json["input"])
        if len(asked) > 8 and not go:
            return  # never answered: the page takes it back
        route.continue_()

    go = []
    with opened(browser, served) as visit:
        page = visit.page
        page.route("**/v1/decisions", slowly)
        drop(page, "rows.jsonl", "".join(json.dumps({"text": f"order {n}", "n": n}) + "\n" for n in range(30)))
        page.get_by_role("button", name="Answer 30 rows").click()
        expect(page.locator(".progress .under")).to_contain_text("8 of 30")
        page.get_by_role("button", name="Stop").click()
        go.append(True)
        assert len(asked) == 12, "four at once"
        page.get_by_role("button", name="Go on with 22 rows").click()
        expect(page.locator(".progress .under")).to_contain_text("30 of 30")
        assert sorted(asked[8:12] + asked[12:]) == sorted(asked[8:12] + [f"order {n}" for n in range(8, 30)])
        page.get_by_label("Who answers").select_option("tiny")
        expect(page.get_by_text("The answers below are those of words")).to_be_visible()
        page.get_by_role("button", name="Answer 30 rows").click()
        expect(page.locator(".progress .under")).to_contain_text("30 of 30")
        expect(page.locator(".decided thead")).to_contain_text("urgent")
        visit.assert_quiet()


def test_a_row_that_is_too_long_is_named_and_a_full_queue_is_asked_again(browser, served):
    busy = [True, True]

    def queue(route):
        if busy and route.request.post_data_json["input"] == "two":
            busy.pop()
            error = {"error": {"message": "the queue is full", "type": "x", "param": None, "code": None}}
            return route.fulfill(status=429, json=error)
        return route.continue_()

    with opened(browser, served, "tiny") as visit:
        page = visit.page
        page.route("**/v1/decisions", queue)
        drop(page, "rows.csv", "text\none\n" + "word " * 600 + "\ntwo\n")
        answer_all(page, 2)
        expect(page.locator(".decided")).to_contain_text("512")
        assert busy == []
        assert_refused(visit, "400", "429")


def test_labels_become_training_rows_of_a_comparison(browser, served, place):
    with opened(browser, served, "tiny") as visit:
        page = visit.page
        page.locator("summary", has_text="Paste questions").click()
        page.get_by_label("The text of a questions.json").fill(json.dumps([{**MOOD, "column": "happy"}, FLAG]))
        page.get_by_role("button", name="Ask these").click()
        expect(page.locator(".answers section")).to_have_count(2)
        drop(
            page,
            "mails.csv",
            "n,text,flag\n" + "".join(f"{n},order {n} is late,{'true' * (n < 2)}\n" for n in range(30)),
        )
        answer_all(page, 30)
        page.get_by_label("Show").select_option("file")
        expect(page.get_by_text("2 rows labelled")).to_be_visible(), "the file's own column says two"
        page.get_by_role("button", name="Check row 3").click()
        form = page.get_by_role("form", name="Row 3")
        expect(form.get_by_label("mood")).to_be_focused()
        first = form.get_by_label("mood").input_value()
        form.get_by_label("mood").select_option("high" if first == "low" else "low")
        form.get_by_label("flag").select_option("")
        page.get_by_role("button", name="Keep, next").click()
        expect(page.get_by_role("form", name="Row 4")).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("form", name="Row 5")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".decided tbody tr").nth(2)).to_contain_text("corrected")
        expect(page.locator(".decided tbody tr").nth(3)).to_contain_text("right")
        expect(page.get_by_text("4 rows labelled")).to_be_visible()
        expect(page.get_by_text("A comparison needs 20.")).to_be_visible()
        page.get_by_role("button", name="Save as training rows").click()
        page.get_by_role("link", name="Compare ways to train on them").click()
        rows_field = page.get_by_label("Rows with questions and answers")
        expect(rows_field).not_to_have_value("")  # the address fills it
        data = rows_field.input_value()
        questions = page.get_by_label("Questions that each row answers").input_value()
        rows = list(csv.reader((place / data).read_text().splitlines()))
        other = "high" if first == "low" else "low"
        assert rows[0] == ["text", "happy", "flag"] and rows[1] == ["order 0 is late", "", "true"]
        assert rows[3] == ["order 2 is late", other, ""] and rows[4][1] in ("low", "high") and len(rows) == 5
        read = load(place / data, questions=place / questions)
        assert read.reading is not None and read.reading.prompt == "text" and len(read.examples) == 4
        visit.assert_quiet()


def test_the_next_rows_to_label_are_chosen_and_a_closed_set_needs_no_file_of_questions(browser, served, place):
    with opened(browser, served) as visit:
        page = visit.page
        drop(page, "rows.csv", ROWS)
        answer_all(page, 43)
        page.get_by_role("button", name="Label the next 20").click()
        expect(page.locator(".label-form")).to_be_visible()
        expect(page.locator(".decided tbody tr")).to_have_count(20)
        expect(page.locator(".decided")).not_to_contain_text("is late"), "it has a label in the file"
        for _ in range(20):
            page.get_by_role("button", name="Right, next").click()
        expect(page.get_by_text("These rows are all labelled.")).to_be_visible()
        expect(page.get_by_text("21 rows labelled")).to_be_visible()
        page.get_by_role("button", name="Save as training rows").click()
        expect(page.locator(".training .command")).not_to_contain_text("--questions")
        page.get_by_role("link", name="Compare ways to train on them").click()
        rows_field = page.get_by_label("Rows with questions and answers")
        expect(rows_field).not_to_have_value("")  # the address fills it
        data = rows_field.input_value()
        expect(page.get_by_label("Questions that each row answers")).to_have_value("")
        read = load(place / data)
        assert len(read.examples) == 21 and read.reading is not None
        assert (read.reading.prompt, read.reading.answer) == ("text", "label")
        visit.assert_quiet()


@pytest.mark.parametrize(("width", "theme"), [(1300, "light"), (1300, "dark"), (360, "light")])
def test_the_filled_screen_is_accessible_and_narrow(browser, served, width, theme):
    with opened(browser, served, width=width, theme=theme, bypass_csp=True) as visit:
        page = visit.page
        drop(page, "rows.csv", ROWS)
        answer_all(page, 43)
        page.get_by_role("button", name="Label the next 20").click()
        page.get_by_role("button", name="Right, next").click()
        page.get_by_role("button", name="Add a question").click()
        page.get_by_role("combobox", name="Kind of answer").select_option("score")
        page.locator("summary", has_text="Paste questions").click()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width
        visit.assert_quiet()


def test_attacks_in_questions_and_rows_do_nothing(browser, served):
    choices = [{"value": text, "description": text} for text in ATTACKS]
    questions = [{"name": ATTACKS[0], "type": "choice", "instructions": ATTACKS[1], "choices": choices}]
    with opened(browser, served, "tiny") as visit:
        page = visit.page
        drop(page, "questions.json", json.dumps({"questions": questions}), ".files")
        expect(page.locator(".answers section")).to_have_count(1)
        drop(page, f"{ATTACKS[0].replace('/', '')}.jsonl", "".join(json.dumps({t: t}) + "\n" for t in ATTACKS))
        expect(page.locator(".file-rows option").first).to_be_attached()
        rows = "".join(json.dumps({"text": text}) + "\n" for text in ATTACKS)
        drop(page, "rows.jsonl", rows)
        answer_all(page, len(ATTACKS))
        page.get_by_role("button", name=re.compile("^Check row")).first.click()
        expect(page.locator(".label-form")).to_contain_text("<")
        assert page.locator("main :is(img, iframe, math, script, svg)").count() == 0
        visit.assert_quiet()


STUB = """() => {
  const plain = window.fetch;
  const text = JSON.stringify({ answers: [{ type: "choice", answered_by: "artifact", confidence: 0.5,
    probabilities: [0.5, 0.3, 0.2].map(probability => ({ probability })) }] });
  window.fetch = (path, options) => String(path).includes("decisions")
    ? Promise.resolve(new Response(text, { headers: { "content-type": "application/json" } })) : plain(path, options);
}"""


def test_ten_thousand_rows_stay_small_and_the_page_stays_usable(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        page.evaluate(STUB)
        drop(page, "many.csv", "text\n" + "".join(f"order {n} {'some more words ' * 20}\n" for n in range(10_000)))
        page.get_by_role("button", name="Answer 10,000 rows").click()
        page.get_by_label("Show").select_option("file")
        expect(page.locator(".progress .under")).to_have_text("10,000 of 10,000 answered", timeout=60_000)
        expect(page.locator(".decided tbody tr")).to_have_count(25)
        used = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        print(f"{used:.0f} MB of JavaScript's memory")
        assert used < 150
        visit.assert_quiet()
