"""Words with a dotted line: explained by pointer, Tab key and touch, from a file that is loaded then."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect
from visits import Visit, frames

TEXTS = json.loads((Path(__file__).parents[1] / "src/glossary.json").read_text(encoding="utf-8"))
SCREENS = [
    "chat", "next", "side", "decide", "compare", "learn", "limits", "run?path=workshop", "inside?text=The+quick+fox",
    "data?path=rows.jsonl", "documents",
]  # fmt: skip


@pytest.mark.parametrize("screen", SCREENS)
def test_every_word_of_a_screen_is_explained_by_the_tab_key(browser, served, screen):
    with Visit(browser, served, screen) as visit:
        page = visit.page
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        expect(page.locator(".term").first).to_be_attached()
        page.wait_for_load_state("networkidle")
        assert not any("glossary" in url for url in asked), "it is loaded with the first word that is asked about"
        page.locator("main details").evaluate_all("all => all.forEach(each => { each.open = true; })")
        words = page.locator("main .term")
        names = words.evaluate_all("all => all.map(each => each.dataset.term)")
        assert names and len(set(names)) == len(names), "where it first occurs"
        for place, name in enumerate(names):
            words.nth(place).focus()
            expect(page.get_by_role("tooltip")).to_have_text(TEXTS[name])
            assert words.nth(place).get_attribute("aria-describedby") == "explained"
        page.keyboard.press("Escape")
        expect(page.get_by_role("tooltip")).to_have_count(0)
        visit.assert_quiet()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pointer_shows_a_text_that_can_be_pointed_at(browser, served, theme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(browser, served, "next", 1280, theme, bypass_csp=True) as visit:
        page = visit.page
        word = page.locator('.term[data-term="probability"]')
        word.hover()
        tip = page.get_by_role("tooltip")
        expect(tip).to_have_text(TEXTS["probability"])
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        tip.hover()
        frames(page, 12)
        expect(tip).to_be_visible()
        page.locator("h1").hover()
        expect(tip).to_have_count(0)
        visit.assert_quiet()


def test_a_touch_shows_it_and_a_touch_elsewhere_hides_it(browser, served):
    with Visit(browser, served, "next", 360, has_touch=True, is_mobile=True) as visit:
        page = visit.page
        page.locator('.term[data-term="probability"]').tap()
        tip = page.get_by_role("tooltip")
        expect(tip).to_have_text(TEXTS["probability"])
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360
        page.locator("h1").tap()
        expect(tip).to_have_count(0)
        assert visit.width() <= 360
        visit.assert_quiet()
