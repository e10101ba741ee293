"""report.html of a comparison and of a pretraining run in a real browser: nothing runs, nothing is fetched, every theme
and width is usable by keyboard."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fake_page
import fake_run
import pytest
from fake_comparison import typed
from waiting import HANG

from riyaz.report.comparison import html

pytestmark = pytest.mark.slow
WIDTHS, THEMES = (360, 1400), ("light", "dark")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium of the system, with a fresh profile and no network of its own."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on PATH; apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * HANG)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a rich comparison with 2,000 rows and of a pretraining run, and of both attacked everywhere."""
    folder = tmp_path_factory.mktemp("pages")
    document = fake_page.rich()
    attacked, rows = fake_page.attacked()
    made = {
        "rich": html.render(typed(document), fake_page.answers(document, 2000), fake_page.COMMANDS),
        "attacked": html.render(typed(attacked), fake_page.typed_rows(rows)),
    }
    run = fake_run.page(fake_run.run(), fake_run.metrics(), fake_run.samples())
    made |= {"learning": run, "learning_attacked": fake_run.page(*fake_run.attacked())}
    for name, text in made.items():
        (folder / f"{name}.html").write_bytes(text.encode("utf-8", "backslashreplace"))
    return {name: folder / f"{name}.html" for name in made}


class Visit:
    """One page opened in a context of its own; remembers requests, dialogs and errors."""

    def __init__(self, browser, path: Path, width: int = 1400, theme: str = "light", **options) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        self.context.set_default_timeout(1000 * HANG)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def settle(page) -> None:
    """Until the page has done what it has put off: the browser calls its timers in the order of their times."""
    page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 400))")


def quiet(visit: Visit, path: Path) -> None:
    """Fails when anything was fetched but the file itself, or anything complained."""
    assert [url for url in visit.requests if url not in (path.as_uri(), "data:,")] == []
    assert visit.dialogs == [] and visit.errors == []


def test_attacks_in_every_text_run_nothing_and_fetch_nothing(browser, files):
    with Visit(browser, files["attacked"]) as visit:
        page = visit.page
        page.locator("#browser > summary").click()
        page.select_option("#show", "all")
        for link in page.query_selector_all("#rows .method, #rows .answer, #rows .prompt"):
            link.dispatch_event("mouseover")
        for summary in page.query_selector_all("summary"):
            if summary.evaluate("element => !element.parentElement.open"):
                summary.dispatch_event("click")
        for place in range(page.locator("#slice option").count()):
            page.select_option("#slice", index=place)
        page.select_option("#slice", index=0)
        page.fill("#search", fake_page.ATTACKS[3])
        settle(page)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, iframe, base, object, embed, script[src]").count() == 0
        assert page.locator("#rows").inner_text().count("<img src=x onerror=window.pwned=1>") > 0, "shown as text"
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400
        page.set_viewport_size({"width": 360, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        quiet(visit, files["attacked"])


def test_a_page_that_is_tampered_with_is_held_by_its_policy(browser, files, tmp_path):
    text = files["rich"].read_text(encoding="utf-8")
    path = tmp_path / "tampered.html"
    path.write_text(text.replace("<header>", "<header><script>window.pwned=1</script><img src='http://localhost:9/x'>"))
    with Visit(browser, path) as visit:
        assert visit.page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in error for error in visit.errors)


@pytest.mark.grid(2)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["rich", "learning"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(browser, files, name, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(browser, files[name], width, theme, bypass_csp=True) as visit:
        page = visit.page
        for details in page.query_selector_all("details"):
            details.evaluate("element => { element.open = true; }")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        clipped = page.evaluate(
            """() => [...document.querySelectorAll('svg.drawn')].filter(e => e.getClientRects().length).flatMap(svg => {
                const frame = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(text => {
                    const box = text.getBoundingClientRect();
                    return box.left < frame.left - 1 || box.right > frame.right + 1
                        || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
                }).map(text => text.textContent);
            })"""
        )
        assert clipped == [], "text that leaves its picture"


def test_on_a_narrow_screen_a_compact_ranking_comes_first_and_tables_scroll_in_their_box(browser, files):
    with Visit(browser, files["rich"], 360) as visit:
        page = visit.page
        assert page.locator(".ranking").is_visible()
        ranking, table = (page.locator(name).bounding_box() for name in (".ranking", "table.arms"))
        assert ranking["x"] + ranking["width"] <= 344.5 and ranking["y"] < table["y"] and table["width"] > 360
        for box in page.query_selector_all(".wide-table"):
            assert box.evaluate("element => element.getBoundingClientRect().right <= 360 || !element.offsetParent")
        page.set_viewport_size({"width": 1400, "height": 900})
        assert not page.locator(".ranking").is_visible()


def test_filters_and_search_work_by_keyboard(browser, files):
    from playwright.sync_api import expect

    with Visit(browser, files["rich"]) as visit:
        page, said = visit.page, visit.page.locator("#count")
        assert page.locator("ol.rows").first.locator("> li").count() == 5 and not said.is_visible()
        page.focus("#browser > summary")
        page.keyboard.press("Enter")
        assert said.inner_text().endswith("of 2,000 rows")
        page.focus("#show")
        page.keyboard.press("Home")
        assert said.inner_text() == "2,000 of 2,000 rows"
        assert page.locator("#rows > li").count() == 25, "rows are made when they are asked for"
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert said.inner_text() == "500 of 2,000 rows", "one of four slices"
        page.keyboard.press("Tab")
        page.keyboard.type("QUESTION 1996")
        expect(said).to_have_text("1 of 2,000 rows")
        assert "Question 1996 about a lamp?" in page.locator("#rows").inner_text()
        for _ in range(len("QUESTION 1996")):
            page.keyboard.press("Backspace")
        expect(said).to_have_text("500 of 2,000 rows")
        page.focus("#more")
        page.keyboard.press("Enter")
        assert page.locator("#rows > li").count() == 50
        assert page.evaluate("document.activeElement.parentElement.id") == "rows", "the reader is at the first new row"
        page.select_option("#slice", "")
        page.select_option("#show", label="the leader is wrong")
        assert said.inner_text().startswith("1,777 of"), "rag_lora is right on every ninth row"
        page.select_option("#show", label="only lora is right")
        expected = [n for n in range(2000) if [p for p in range(10) if n % (p + 2) == 0] == [p_lora()]]
        assert said.inner_text() == f"{len(expected)} of 2,000 rows"
        quiet(visit, files["rich"])


def p_lora() -> int:
    """The place of lora among the arms of the fabricated comparison."""
    return fake_page.METHODS.index("lora")


def test_a_filter_of_two_thousand_rows_makes_few_of_them(browser, files):
    """So that it takes no time worth noticing."""
    with Visit(browser, files["rich"]) as visit:
        made = visit.page.evaluate(
            """() => { const show = document.getElementById('show'), create = document.createElement;
                let made = 0;
                document.createElement = function (...words) { made += 1; return create.apply(this, words); };
                return ['all', 'disagree', 'wrong', 'all'].map(value => {
                    made = 0; show.value = value; show.dispatchEvent(new Event('change')); return made; }); }"""
        )
        assert all(25 <= each < 25 * 100 for each in made), "elements of 25 rows"


def test_without_javascript_all_but_the_examples_is_there(browser, files):
    with Visit(browser, files["rich"], java_script_enabled=False) as visit:
        page = visit.page
        assert page.locator("noscript p").is_visible()
        assert not page.locator("#browser").is_visible()
        assert page.locator("ol.rows > li").count() == 5, "rows on which pick and runner-up disagree"
        assert page.locator("section").count() == 13
        assert page.locator(".for-wide svg").first.is_visible() and page.locator("table.arms").is_visible()


def test_attacks_in_a_pretraining_run_run_nothing_and_fetch_nothing(browser, files):
    with Visit(browser, files["learning_attacked"]) as visit:
        page = visit.page
        page.locator("#samples > details > summary").click()
        for place in range(page.locator(".stepper label").count()):
            page.locator(".stepper label").nth(place).click()
        for summary in page.query_selector_all("summary"):
            if summary.evaluate("element => !element.parentElement.open"):
                summary.dispatch_event("click")
        settle(page)
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, iframe, base, object, embed, script").count() == 0
        assert page.locator(".look").last.inner_text().count("<img src=x onerror=window.pwned=1>") > 0, "shown as text"
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400
        page.set_viewport_size({"width": 360, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        quiet(visit, files["learning_attacked"])


def test_samples_are_leafed_through_by_keyboard_and_without_javascript(browser, files):
    chosen = [fake_run.SAMPLED[place] for place in (0, 1, 2, 3, 4, 5, 6, 8, 11)]
    with Visit(browser, files["learning"], java_script_enabled=False) as visit:
        page, looks = visit.page, visit.page.locator(".look")
        page.focus("#samples > details > summary")
        page.keyboard.press("Enter")
        assert looks.count() == len(chosen)
        page.locator("#look-8").focus()
        for _ in range(2):  # from the last to the first, and back to where it began
            for turn in range(len(chosen)):
                place = (len(chosen) - 1 + turn) % len(chosen)
                seen = [i for i in range(len(chosen)) if looks.nth(i).is_visible()]
                assert seen == [place], "one step at a time"
                text = next(s["texts"][0]["text"] for s in fake_run.samples() if s["step"] == chosen[place])
                assert " ".join(text.split()) in " ".join(looks.nth(place).inner_text().split())
                page.keyboard.press("ArrowRight")
        page.locator(".stepper + details summary").focus()
        page.keyboard.press("Enter")
        assert page.locator(".stepper + details table").is_visible()
        quiet(visit, files["learning"])
