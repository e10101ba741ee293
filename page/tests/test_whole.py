"""Every screen from a real server in a process of its own, from a form to its result, with nothing made up: with a tiny
model, and with each pulled model that PAGE_MODELS names:

    PAGE_MODELS=smollm2-135m make test-page
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from processes import Server
from test_screens import SCREENS
from tiny_llama import write_hf_folder
from visits import Visit

from riyaz.sources import store

ROOT = Path(__file__).parents[2]
TINY = "tiny"
MODELS = [TINY, *os.environ.get("PAGE_MODELS", "").split()]
LONG = 1_800_000  # milliseconds; a real model on a busy machine
QUESTIONS = {"card": "my card number {} is lost", "money": "where is the money of transfer {}"}
BUDGET = "10m"  # wall time, of which a method on a busy machine may take most of a minute


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """The model that the page is started with."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page of a folder with rows, documents and, for the tiny one, the model."""
    folder = tmp_path_factory.mktemp("whole")
    if model == TINY:
        write_hf_folder(folder / model, context=2048)
    rows = [{"prompt": text.format(number), "answer": name} for number in range(60) for name, text in QUESTIONS.items()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(ROOT / "examples/helpdesk/handbook", folder / "handbook")
    with Server(folder, "--model", model, home=None if model == TINY else store.home()) as made:
        yield made


def visit(browser, server: Server, screen: str, **options) -> Visit:
    """A screen of the page, with patience."""
    made = Visit(browser, server, screen, token=server.token, **options)
    made.page.set_default_timeout(LONG)
    return made


def expect_accessible(page) -> None:
    """Axe finds nothing."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_opens(browser, server, screen):
    for width, theme in ((1300, "light"), (360, "dark")):
        with visit(browser, server, screen, width=width, theme=theme) as opened:
            expect(opened.page.locator("main h1").first).to_be_attached()
            opened.page.wait_for_load_state("networkidle")
            assert opened.width() <= width
            opened.assert_quiet()


def test_the_next_word_is_told_in_the_models_own_numbers(browser, server, model):
    with visit(browser, server, "next") as opened:
        page = opened.page
        expect(page.get_by_label("Text")).to_have_value("The quick brown fox")
        expect(page.locator(".bars li")).to_have_count(10, timeout=LONG)
        asked = {"model": model, "text": "The quick brown fox"}
        found = httpx.post(
            f"{server.url}/page/next", json=asked, headers={"x-riyaz-token": server.token}, timeout=60
        ).json()
        story = page.locator(".story li")
        expect(story).to_have_count(3)
        expect(story.nth(0)).to_contain_text(f"a vector of {found['width']:,} numbers")
        expect(story.nth(1)).to_contain_text(f"{found['layers']} layers")
        opened.assert_quiet()


def test_a_chat_shows_its_tokens(browser, server):
    with visit(browser, server, "chat") as opened:
        page = opened.page
        page.locator("summary", has_text="System prompt").click()
        page.get_by_label("Longest answer").fill("12")
        page.fill("#question", "Name a river.")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Answer again")).to_be_visible(timeout=LONG)
        page.get_by_text("Tokens", exact=True).click()
        page.locator(".tokens .t").first.click()
        expect(page.locator(".inspector .bars li")).not_to_have_count(0)
        opened.assert_quiet()


def test_two_answers_of_one_model_are_voted_on_and_count_for_none(browser, server):
    with visit(browser, server, "side") as opened:
        page = opened.page
        page.get_by_role("button", name="Add a model").click()
        page.get_by_label("Prompt").fill("Name a river.")
        page.get_by_role("button", name="Ask 2 models").click()
        expect(page.get_by_text("Which answer is better?")).to_contain_text("does not count on the board", timeout=LONG)
        page.get_by_role("button", name="A", exact=True).click()
        expect(page.get_by_text("Kept: A is better.")).to_be_visible()
        expect(page.get_by_text("No votes yet.")).to_be_visible()
        assert (server.folder / "preferences.jsonl").read_bytes().count(b"\n") == 1
        opened.assert_quiet()


def test_data_is_shown_as_the_model_sees_it(browser, server):
    with visit(browser, server, "data?path=rows.jsonl") as opened:
        page = opened.page
        expect(page.get_by_text("Task: choose one answer from a fixed set")).to_be_visible(timeout=LONG)
        expect(page.locator(".rendered mark").first).to_be_attached(timeout=LONG)
        opened.assert_quiet()


def test_a_comparison_from_its_plan_to_a_cited_passage(browser, server, model):
    with visit(browser, server, "compare", bypass_csp=True) as opened:
        page = opened.page
        page.get_by_role("textbox", name="Rows with questions").fill("rows.jsonl")
        page.get_by_role("textbox", name="Documents to retrieve").fill("handbook")
        page.get_by_label("Budget").fill(BUDGET)
        page.get_by_label("Folder of the run").fill("desk")
        for box in page.locator(".methods input").all():
            box.uncheck()
        for method in ("nearest", "rag"):
            page.locator(".methods .check", has=page.get_by_text(method, exact=True)).locator("input").check()
        page.get_by_role("button", name="Plan and estimate").click()
        plan = page.locator("section", has=page.get_by_role("heading", name="The plan"))
        for name in ("time", "peak memory", "disk"):
            expect(plan.locator(".tiles > div", has_text=name)).to_be_visible(timeout=LONG)
        expect(plan.locator("tbody tr")).to_have_count(2)
        expect(plan.locator(".command")).to_contain_text("riyaz compare ./rows.jsonl")
        expect(plan.locator(".command")).to_contain_text("--methods nearest,rag")
        expect(plan.get_by_role("heading")).to_be_in_viewport()
        expect_accessible(page)
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".badge").first).to_have_text("done", timeout=LONG)
        expect(page.locator(".pick")).to_be_visible()
        expect(page.locator(".arms tbody tr")).to_have_count(2)
        page.get_by_role("button", name="Chat with it").click()
        expect(page.locator("#question")).to_be_visible()

        opening = {"path": "desk/arms/rag"}
        opened_as = httpx.post(
            f"{server.url}/page/adapters", json=opening, headers={"x-riyaz-token": server.token}, timeout=60
        )
        assert opened_as.status_code == 201, opened_as.text
        made = opened_as.json()
        page.goto(f"{server.url}/#/chat?model={made['id']}")
        page.reload()
        page.fill("#question", "How long is the grace period when I return late?")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Answer again")).to_be_visible(timeout=LONG)
        page.locator(".sources summary").click()
        page.locator(".sources a").first.click()
        passage = page.locator(".in-place mark")
        expect(passage).to_be_in_viewport()
        assert len(passage.inner_text()) > 20
        expect_accessible(page)
        page.get_by_role("link", name="back to the answer").click()
        expect(page.locator(".turn.user")).to_contain_text("grace period")
        assert opened.outside == [] and opened.dialogs == []


@pytest.mark.parametrize("width", [1300, 360])
def test_limits_are_measured_and_shown(browser, server, model, width):
    with visit(browser, server, "limits", width=width, bypass_csp=True) as opened:
        page = opened.page
        if not (server.folder / f"runs/limits-{model}/limits.json").exists():
            page.get_by_role("button", name=f"Measure {model}").click()
            expect(page.locator(".badge").first).to_have_text("done", timeout=LONG)
            page.get_by_role("link", name="The figures").click()
        else:
            page.goto(f"{server.url}/#/limits?path=runs/limits-{model}")
        for title in ("Bias", "Hallucination", "Context", "Cost", "How fragile"):
            expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=LONG)
        row = page.locator(".part tbody tr").first
        expect(row).to_contain_text(" to ")
        page.wait_for_load_state("networkidle")
        expect_accessible(page)
        assert opened.width() <= width
        assert opened.outside == [] and opened.dialogs == []
