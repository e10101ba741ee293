"""The screen of documents: a question that they do not answer gets no passages unless they are asked for."""

from playwright.sync_api import expect
from visits import Visit, json_of

COLLECTION = {"path": "kept.sqlite", "documents": [], "passages": 3}
PASSAGE = {"doc_id": "a.md", "title": "A", "text": "The bike costs four euros.", "start": 0, "end": 26}


def searched(relevant: bool, **more: object) -> dict[str, object]:
    passages = [{**PASSAGE, "relevant": relevant, **more}]
    return {
        "**/page/collections": json_of({"collections": [COLLECTION]}),
        "**/page/search": json_of({"passages": passages}),
    }


def test_nothing_relevant_is_said_and_the_nearest_passages_stay_one_click_away(browser, served):
    with Visit(browser, served, "documents?query=who+is+the+CEO", routes=searched(relevant=False)) as visit:
        visit.page.get_by_role("button", name="Search").click()
        expect(visit.page.get_by_text("Nothing relevant")).to_be_visible()
        expect(visit.page.locator(".passage")).to_be_hidden()
        visit.page.get_by_text("Show the nearest passages in any case").click()
        expect(visit.page.locator(".passage")).to_contain_text("four euros")
        expect(visit.page.locator(".passage")).to_contain_text("likely not about the question")
        visit.assert_quiet()


def test_a_passage_names_the_documents_that_say_the_same(browser, served):
    routes = searched(relevant=True, also=["copy.md", "copy.pdf"])
    with Visit(browser, served, "documents?query=bike", routes=routes) as visit:
        visit.page.get_by_role("button", name="Search").click()
        expect(visit.page.locator(".passage")).to_contain_text("characters 0–26, also in copy.md, copy.pdf")
        expect(visit.page.get_by_text("Nothing relevant")).to_have_count(0)
        visit.assert_quiet()
