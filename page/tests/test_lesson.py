"""The screen Lesson in a browser: the guess first, then the numbers of the model; the game; the sheet as PDF."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ARGUMENTS
from live_server import Running
from playwright.sync_api import expect
from visits import Visit, frames, json_of

STATIONS = 6
POINTS = 72 / 2.54  # of a centimetre
MARGIN = 1.4 * POINTS  # of the sheet, as the page's styles give it


def guess(page) -> None:
    """Choose the first of every guess of a station."""
    expect(page.locator("main fieldset").first).to_be_visible()
    for group in page.locator("main fieldset").all():
        group.get_by_role("radio").first.check()


def ask(page) -> None:
    """Guess, ask the model, and wait until its answer is there."""
    guess(page)
    page.get_by_role("button", name="Ask the model").click()
    expect(page.get_by_text("Answered in")).to_be_visible()


def go_on(page, place: int) -> None:
    """To the next station, which has this number."""
    page.get_by_role("button", name="Next station").click()
    expect(page.get_by_text(f"Station {place} of 6")).to_be_visible()


def next_of(served: Running, text: str, top: int = 1) -> dict:
    answer = served.post("/page/next", {"model": "tiny", "text": text, "top": top})
    assert answer.status_code == 200, answer.text
    return answer.json()


def loss_of(served: Running, text: str) -> float:
    """Nats per token of a text, from the probabilities of /page/next: every token asked for by itself."""
    tokens = [each["text"] for each in next_of(served, text)["tokens"]]
    nats = []
    for place in range(1, len(tokens)):
        candidates = next_of(served, "".join(tokens[:place]), 1000)["candidates"]
        nats.append(-next(each["logprob"] for each in candidates if each["text"] == tokens[place]))
    return sum(nats) / len(nats)


def test_the_lesson_from_its_start_to_its_end(browser, served):
    with Visit(browser, served, "lesson") as visit:
        page = visit.page
        for place in range(1, STATIONS + 1):
            expect(page.get_by_text(f"Station {place} of 6, about 5 minutes")).to_be_visible()
            expect(page.get_by_text("What to notice")).to_have_count(0)
            ask(page)
            expect(page.locator(".told [role=status] p")).to_have_count(page.locator("main fieldset").count())
            expect(page.locator(".told [role=status] p").first).to_contain_text("Your guess")
            page.locator("summary", has_text="Show the answer to the question").click()
            assert "NaN" not in page.locator("main").inner_text()
            if place < STATIONS:
                page.get_by_role("button", name="Next station").click()
        page.get_by_role("button", name="To the guessing game").click()
        expect(page.get_by_role("heading", name="Which word comes next?")).to_be_visible()
        page.go_back()
        expect(page.locator(".told")).to_be_visible()  # the answer stays, and is not asked for again
        page.reload()
        expect(page.get_by_role("button", name="Ask the model")).to_be_disabled()  # nothing was stored
        visit.assert_quiet()


def test_the_model_is_asked_after_the_guess_and_never_before(browser, served):
    asked = []
    with Visit(browser, served, "lesson?station=5") as visit:
        page = visit.page
        page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
        button = page.get_by_role("button", name="Ask the model")
        expect(button).to_be_disabled()
        page.locator("main fieldset").first.get_by_role("radio").first.check()
        expect(button).to_be_disabled()  # the second guess is missing
        page.locator("main form").evaluate("form => form.requestSubmit()")
        frames(page, 20)
        assert asked == []
        expect(page.locator(".told")).to_have_count(0)
        ask(page)
        assert asked
        expect(page.locator("main fieldset").first.get_by_role("radio").first).to_be_disabled()
        visit.assert_quiet()


def test_the_numbers_are_those_of_the_routes(browser, served):
    with Visit(browser, served, "lesson") as visit:
        page = visit.page
        ask(page)
        sentences = page.locator("main ul").first.locator("li").all_inner_texts()
        assert len(sentences) == 4
        for text, language in zip(sentences, ("English", "German", "French", "Hindi"), strict=True):
            tokens, words = len(next_of(served, text)["tokens"]), len(text.split())
            line = f"{language}: {words} words, {tokens} tokens, {tokens / words:.1f} tokens per word."
            expect(page.locator(".told li", has_text=language)).to_have_text(line)
        go_on(page, 2)
        text = page.locator("main ul li").first.inner_text()
        ask(page)
        likeliest = next_of(served, text)["candidates"][0]
        share = f"{100 * math.exp(likeliest['logprob']):.1f} %"
        expect(page.locator(".told li", has_text="The likeliest token")).to_contain_text(share)
        go_on(page, 3)
        texts = page.locator("main ul").first.locator("li").all_inner_texts()
        ask(page)
        lines = page.locator(".told li", has_text=re.compile("^Loss of")).all_inner_texts()
        for text, line in zip(texts, lines, strict=True):
            assert float(line.split()[-4]) == pytest.approx(loss_of(served, text), abs=0.011), line
        visit.assert_quiet()


def test_the_comparison_of_the_folder_is_shown(browser, served, folder):
    arms = json.loads((folder / "workshop/compare.json").read_text())["arms"]
    with Visit(browser, served, "lesson?station=4") as visit:
        ask(visit.page)
        rows = visit.page.locator(".told tbody tr")
        expect(rows).to_have_count(len([arm for arm in arms if arm.get("score") is not None]))
        visit.assert_quiet()


def test_what_is_missing_is_a_sentence(browser, served):
    routes = {"**/page/runs": json_of({"runs": [], "samples": []})}
    with Visit(browser, served, "lesson?station=3", routes=routes) as visit:
        page = visit.page
        for place, line in (
            (3, "No finished training is in this folder yet"),
            (4, "No finished comparison is in this folder yet"),
            (5, "No limits were measured in this folder yet"),
            (6, "No model was made ternary in this folder yet"),
        ):
            expect(page.get_by_text(f"Station {place} of 6")).to_be_visible()
            ask(page)
            expect(page.get_by_text(line)).to_be_visible()
            if place < STATIONS:
                page.get_by_role("button", name="Next station").click()
        visit.assert_quiet()


@pytest.mark.parametrize(
    ("status", "said"), [(429, "The server is busy"), (503, "Try again in a moment"), (400, "it is broken")]
)
def test_a_refusal_is_a_sentence_and_is_asked_again(browser, served, status, said):
    left = [True]

    def refuse(route):
        if left:
            left.pop()
            return route.fulfill(status=status, json={"error": {"message": "it is broken", "param": None}})
        return route.continue_()

    with Visit(browser, served, "lesson?station=2", routes={"**/page/next": refuse}) as visit:
        page = visit.page
        guess(page)
        page.get_by_role("button", name="Ask the model").click()
        expect(page.get_by_role("alert")).to_contain_text(said)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_text("Answered in")).to_be_visible()
        assert len(visit.errors) == 1 and str(status) in visit.errors[0]


def test_a_station_by_keyboard_alone(browser, served):
    with Visit(browser, served, "lesson") as visit:
        page = visit.page
        expect(page.get_by_role("radio")).to_have_count(4)
        page.get_by_label("Model").focus()
        page.keyboard.press("Tab")
        expect(page.get_by_role("radio").first).to_be_focused()
        page.keyboard.press("Space")
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("radio").nth(1)).to_be_checked()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Ask the model")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Answered in")).to_be_visible()
        expect(page.get_by_role("heading", name="The answer of the model")).to_be_focused()
        press(page, "Next station")
        expect(page.get_by_role("heading", name="The next word")).to_be_focused()
        visit.assert_quiet()


def press(page, name: str) -> None:
    """Reach a button by the Tab key, and press it."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == name:
            return page.keyboard.press("Enter")
    raise AssertionError(f"{name} is not reached by the Tab key")


def test_the_game_by_keyboard_alone(browser, served):
    with Visit(browser, served, "lesson?station=6") as visit:
        page = visit.page
        expect(page.get_by_role("radio").first).to_be_visible()
        page.locator("h1").click()
        press(page, "To the guessing game")
        expect(page.get_by_role("heading", name="Which word comes next?")).to_be_focused()
        for place in range(1, 11):
            expect(page.get_by_role("heading", name=f"Text {place} of 10")).to_be_visible()
            if place > 1:
                expect(page.get_by_role("heading", name=f"Text {place} of 10")).to_be_focused()
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Which word comes next?")).to_be_focused()
        expect(page.locator("tbody tr")).to_have_count(10)
        visit.assert_quiet()


def test_the_game_counts_hits_and_probabilities(browser, served):
    with Visit(browser, served, "lesson?view=game") as visit:
        page = visit.page
        points = 0.0
        for place in range(10):
            expect(page.get_by_text(f"Text {place + 1} of 10")).to_be_visible()
            if place == 3:
                page.get_by_label("Type the word").check()
                page.get_by_role("textbox", name="The next word").fill("Oxygen ")
                page.keyboard.press("Enter")
            elif place == 4:
                page.get_by_label("Type the word").uncheck()
            if place != 3:
                page.locator(".lead + .actions button").first.click()
            expect(page.locator("tbody tr")).to_have_count(place + 1)
            cells = page.locator("tbody tr").nth(place).locator("td").all_inner_texts()
            text = page.locator("tbody tr").nth(place).locator("th").inner_text()
            points += chance_of(served, text, cells[0])
        rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
        hits = sum(real == own.lower() for real, own, _ in rows)
        assert hits >= 1
        expect(page.locator(".tiles b").first).to_have_text(str(hits))
        expect(page.locator(".tiles b").last).to_have_text(f"{points:.2f}")
        page.get_by_role("button", name="Begin the game again").click()
        expect(page.get_by_text("Text 1 of 10")).to_be_visible()
        visit.assert_quiet()


def chance_of(served: Running, text: str, word: str) -> float:
    """The probability of a word after a text, from /page/next: that of each of its tokens, multiplied."""
    before = len(next_of(served, text)["tokens"])
    tokens = [each["text"] for each in next_of(served, f"{text} {word}")["tokens"]]
    chance = 1.0
    for place in range(before, len(tokens)):
        candidates = next_of(served, "".join(tokens[:place]), 1000)["candidates"]
        chance *= math.exp(next(each["logprob"] for each in candidates if each["text"] == tokens[place]))
    return chance


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_every_part_is_accessible_and_narrow(browser, served, width, theme):
    with Visit(browser, served, "lesson", width, theme, bypass_csp=True) as visit:
        page = visit.page
        for view in ("station=1", "station=3", "station=4", "station=6", "view=game", "view=sheet"):
            page.evaluate(f"location.hash = '#/lesson?{view}'")
            if view.startswith("station"):
                expect(page.get_by_text(f"Station {view[-1]} of 6")).to_be_visible()
                ask(page)
            elif view == "view=game":
                page.locator(".lead + .actions button").first.click()
                expect(page.locator("tbody tr")).to_have_count(1)
            else:
                expect(page.get_by_text("Computed by tiny")).to_be_visible()
            report = Axe().run(page)
            assert report.violations_count == 0, report.generate_report()
            assert visit.width() <= width, view
        visit.assert_quiet()


@pytest.fixture(scope="module")
def printed(served: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pypdfium2.PdfDocument]:
    """The sheet, printed by Chromium's own command."""
    folder = tmp_path_factory.mktemp("printed")
    program = shutil.which("chromium") or "/usr/bin/chromium"
    address = f"{served.url}/#/lesson?view=sheet&token={served.state.page.token}"
    command = [
        program, "--headless", *ARGUMENTS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000",
        "--no-pdf-header-footer", f"--print-to-pdf={folder / 'sheet.pdf'}", address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (folder / "sheet.pdf").is_file(), done.stderr
    document = pypdfium2.PdfDocument(Path(folder / "sheet.pdf"))
    yield document
    document.close()


def test_the_sheet_is_printed_with_the_answers_behind_the_tasks(printed):
    texts = [page.get_textpage().get_text_bounded() for page in printed]
    assert 3 <= len(texts) <= 5
    first = next(place for place, text in enumerate(texts) if text.lstrip().startswith("Answers"))
    assert first >= 2
    tasks, answers = "\n".join(texts[:first]), "\n".join(texts[first:])
    for title in ("1. Words become numbers", "6. CPU and BitNet", "7. Which word comes next?"):
        assert title in tasks and title in answers
    assert "☐" in tasks and "☐" not in answers
    assert "tokens per word" in answers and "tokens per word" not in tasks
    assert "Computed by tiny" in answers
    assert "To the content" not in tasks and "Chat" not in tasks  # the screen's menu and buttons


def test_nothing_of_the_sheet_is_cut_off(printed):
    for page in printed:
        width, height = page.get_size()
        assert (round(width), round(height)) == (595, 842)  # A4
        text = page.get_textpage()
        letters = [place for place in range(text.count_chars()) if text.get_text_range(place, 1).strip()]
        boxes = [text.get_charbox(place) for place in letters]
        assert max(box[2] for box in boxes) <= width - MARGIN + 1
        assert min(box[0] for box in boxes) >= MARGIN - 1


def test_a_dark_screen_is_printed_black_on_white(browser, served):
    with Visit(browser, served, "lesson?view=sheet", theme="dark") as visit:
        page = visit.page
        expect(page.get_by_role("button", name="Print")).to_be_enabled()
        page.emulate_media(media="print", color_scheme="dark")
        colours = "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
        assert page.locator(".answers li").first.evaluate(colours) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        expect(page.locator(".menu")).to_be_hidden()
        expect(page.get_by_role("button", name="Print")).to_be_hidden()
        visit.assert_quiet()
