"""A first visit, with nothing in the folder and no model: samples, marked as such; and when they fold."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_run
import pytest
from live_server import Running, running
from playwright.sync_api import expect
from visits import Visit

from riyaz.cli.ui import _filled
from riyaz.methods import abouts, from_votes
from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page

MARK = "a sample that comes with Riyaz"
SIZES = [(1280, "light"), (390, "light"), (360, "dark")]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a first visit."""
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def first(empty: Path) -> Iterator[Running]:
    """`riyaz ui` in a folder without files, where no model was pulled."""
    opener = Opener(most=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIYAZ_HOME", str(empty / ".home"))
        _filled(opener, (), empty)
    page = Page.of(empty, "riyaz ui", abouts(), from_votes())
    with running(opener, page=page) as made:
        made.http.headers["x-riyaz-token"] = page.token
        yield made


SHOWN = {
    "learn": "A model that learned to tell stories",
    "limits": "Measured limits of smollm2-135m",
    "runs": "Finished runs",
    "side": "Answers of two models",
}


@pytest.mark.parametrize(("width", "theme"), SIZES)
@pytest.mark.parametrize("screen", SHOWN)
def test_a_screen_is_filled_at_the_first_visit(browser, first, screen, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(browser, first, screen, width, theme, bypass_csp=True) as visit:
        page = visit.page
        section = page.locator("section.sample")
        expect(section.get_by_role("heading", level=2).first).to_contain_text(SHOWN[screen])
        expect(section.get_by_text(MARK).first).to_be_visible()
        parts = {"learn": ".plot", "limits": "td.figure", "runs": ".card", "side": ".column"}
        expect(section.locator(parts[screen]).first).to_be_visible()
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width
        visit.assert_quiet()


@pytest.mark.parametrize("screen", ["next", "inside", "chat"])
def test_tiny_models_answer_and_say_that_they_are_samples(browser, first, screen):
    with Visit(browser, first, screen, 390) as visit:
        page = visit.page
        expect(page.locator("main")).to_contain_text("two samples that come with Riyaz answer")
        expect(page.get_by_role("combobox", name="Model").first).to_have_value("sample-animals")
        if screen == "next":
            expect(page.locator(".bars li")).to_have_count(10)
        if screen == "inside":
            page.get_by_role("button", name="English").click()
            expect(page.get_by_role("heading", name="Words to numbers")).to_be_visible()
        assert visit.width() <= 390
        visit.assert_quiet()


@pytest.mark.parametrize("name", ["quickstart", "animals", "animals-ternary"])
def test_a_sample_run_opens_and_nothing_can_be_done_to_it(browser, first, name):
    with Visit(browser, first, "runs", 390) as visit:
        page = visit.page
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator("h1")).to_have_text(name)
        expect(page.locator(".badge").filter(has_text=MARK)).to_be_visible()
        for action in ("Chat with it", "Go on", "Stop and keep the best"):
            expect(page.get_by_role("button", name=action)).to_have_count(0)
        assert visit.width() <= 390
        visit.assert_quiet()


def test_the_sample_text_is_copied_only_where_the_reader_asks(browser, first, empty):
    with Visit(browser, first, "learn") as visit:
        page = visit.page
        button = page.get_by_role("button", name="Copy the text to uploads/animals.txt and learn from it")
        expect(button).to_be_visible()
        assert not (empty / "uploads").exists()
        for _ in range(2):  # the second time it is there already
            button.click()
            expect(page.get_by_label("Text to learn from")).to_have_value("uploads/animals.txt")
        expect(page.locator(".command").first).to_contain_text("riyaz pretrain uploads/animals.txt")
        assert (empty / "uploads/animals.txt").stat().st_size > 50_000
    shutil.rmtree(empty / "uploads")


def test_samples_fold_below_what_is_the_users_own(browser, first, empty):
    fake_run.write(empty / "learned")
    try:
        for screen, folded in (("runs", True), ("learn", True), ("limits", False)):
            with Visit(browser, first, screen, 390) as visit:
                page = visit.page
                if not folded:
                    expect(page.locator("section.sample")).to_be_visible()
                    continue
                expect(page.locator("main").get_by_role("link", name="learned", exact=True)).to_be_visible()
                fold = page.locator("details.sample")
                expect(fold).to_contain_text(MARK)
                expect(page.locator("section.sample")).to_have_count(0)
                fold.locator("summary").click()
                expect(fold.locator(".card, .plot").first).to_be_visible()
                visit.assert_quiet()
    finally:
        shutil.rmtree(empty / "learned")
