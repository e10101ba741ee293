"""Runs in a browser: one that is started in the page, followed over a reload and a lost server, stopped and resumed."""

import json
import os
import shutil
import sys

import fake_run
import pretend_run
import pytest
from playwright.sync_api import expect
from visits import Visit, json_of

from riyaz.methods import from_votes
from riyaz.serve.page import starting

SECONDS = 1000


@pytest.mark.parametrize(("width", "theme"), [(1300, "light"), (360, "dark")])
def test_a_finished_comparison_is_shown_whole(browser, served, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(browser, served, "run?path=workshop", width, theme, bypass_csp=True) as visit:
        page = visit.page
        expect(page.locator(".pick")).to_be_visible()
        drawn = page.get_by_role("img", name="Score against milliseconds per answer")
        expect(drawn).to_be_hidden()
        for fold in page.locator("details.fold > summary").all():
            fold.click()
        expect(page.locator(".arms tr.picked")).to_contain_text("pick")
        expect(drawn).to_be_visible()
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width
        assert visit.outside == [] and visit.dialogs == []


def test_a_run_opens_folded_at_390_pixels_and_its_table_shows_time_and_memory(browser, served):
    with Visit(browser, served, "run?path=workshop", 390) as visit:
        page = visit.page
        expect(page.locator(".pick")).to_be_visible()
        page.wait_for_load_state("networkidle")
        folds = page.locator("details.fold")
        assert folds.count() >= 3 and not folds.evaluate_all("all => all.some(each => each.open)")
        height = page.evaluate("document.documentElement.scrollHeight")
        folds.first.locator("summary").focus()
        page.keyboard.press("Enter")
        row = page.locator(".arms tr.picked")
        expect(row).to_be_visible()
        labels = "cells => cells.map(each => getComputedStyle(each, '::before').content)"
        assert row.locator("td").evaluate_all(labels)[1:] == [
            '"ms per answer"', '"training"', '"peak memory"', '"artifact"', '"forgetting"',
        ]  # fmt: skip
        for cell in row.locator("th, td").all():
            box = cell.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert visit.width() <= 390
        page.reload()
        expect(page.locator(".pick")).to_be_visible()
        assert not folds.evaluate_all("all => all.some(each => each.open)"), "nothing is remembered"
        assert height < 3000, height
        visit.assert_quiet()


def test_find_in_page_and_paper_reach_what_is_folded(browser, served):
    with Visit(browser, served, "run?path=workshop", 1280) as visit:
        page = visit.page
        table = page.locator(".arms")
        expect(table).to_be_attached()
        expect(table).to_be_hidden()
        assert page.evaluate("document.body.textContent.includes('peak memory')"), "it is there to be found"
        page.emulate_media(media="print")
        expect(table).to_be_visible()
        assert table.bounding_box()["height"] > 100
        expect(page.get_by_role("img", name="Score against milliseconds per answer")).to_be_visible()
        page.emulate_media(media="screen")
        expect(table).to_be_hidden()


def test_a_finished_pretraining_opens_folded_and_is_found_and_printed_whole(browser, served):
    with Visit(browser, served, "run?path=sample:animals", 390) as visit:
        page = visit.page
        page.locator(".learned .program").wait_for(state="attached")  # of a file that is loaded on demand
        folds = page.locator("details.fold")
        assert folds.count() == 3 and not folds.evaluate_all("all => all.some(each => each.open)")
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height < 2000, height
        hidden = [
            page.get_by_role("img", name="Loss in nats per token"), page.locator(".learned .program"),
            page.locator(".pair .bars").first,
        ]  # fmt: skip
        for part in hidden:
            expect(part).to_be_hidden()
        page.emulate_media(media="print")
        for part in hidden:
            expect(part).to_be_visible()
            assert part.bounding_box()["width"] > 150
        page.emulate_media(media="screen")
        for text in ("Bits per byte of held-out text", "The four lines of step", "before training (step 0)"):
            assert page.evaluate("text => document.body.textContent.includes(text)", text), "it is there to be found"
        assert visit.width() <= 390
        visit.assert_quiet()


@pytest.mark.parametrize(("width", "theme"), [(1300, "light"), (360, "dark")])
def test_a_finished_pretraining_shows_what_was_learned(browser, served, folder, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    fake_run.write(folder / "learned")
    with Visit(browser, served, "run?path=learned", width, theme, bypass_csp=True) as visit:
        page = visit.page
        expect(page.locator("main")).to_contain_text("bits per byte")
        expect(page.locator(".samples li").first).to_be_visible()
        curve = page.get_by_role("img", name="Loss in nats per token")
        expect(curve).to_be_hidden()
        for fold in page.locator("details.fold > summary").all():
            fold.click()
        expect(curve).to_be_visible()
        words = page.locator("details", has=page.get_by_role("heading", name="The next word, before and after"))
        expect(words.locator(".bars")).to_have_count(2)
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width
        assert visit.outside == [] and visit.dialogs == []
    shutil.rmtree(folder / "learned")


def test_the_settings_in_which_two_runs_differ(browser, served, folder):
    for name, seed in (("one", 3), ("two", 4)):
        (folder / name).mkdir()
        (folder / name / "settings.json").write_text(json.dumps({"settings": {"seed": seed, "budget": 60}}))
    with Visit(browser, served, "runs") as visit:
        page = visit.page
        for name in ("one", "two"):
            card = page.locator(".card", has=page.get_by_role("link", name=name, exact=True))
            card.get_by_label("compare settings").check()
        row = page.get_by_role("row").filter(has_text="seed")
        expect(row).to_contain_text("settings.seed")
        expect(row.get_by_role("cell")).to_have_text(["3", "4"])
        expect(page.get_by_role("row").filter(has_text="budget")).to_have_count(0)
        visit.assert_quiet()
    for name in ("one", "two"):
        shutil.rmtree(folder / name)


def test_a_run_is_started_followed_stopped_and_resumed(browser, served, folder):
    with Visit(browser, served, "learn") as visit:
        page = visit.page
        page.get_by_label("Text to learn from").fill("handbook")
        page.get_by_label("Text to learn from").press("Tab")
        page.get_by_label("Budget").fill("3m")
        expect(page.locator(".command")).to_contain_text("riyaz pretrain handbook --size 1m --budget 3m")
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".badge").first).to_have_text("running", timeout=60 * SECONDS)
        curve = page.get_by_role("img", name="Loss in nats per token")
        expect(curve).to_be_visible(timeout=60 * SECONDS)

        page.reload()
        expect(curve).to_be_visible(timeout=60 * SECONDS)
        page.route("**/page/events*", lambda route: route.abort())
        page.reload()
        expect(page.get_by_role("alert").first).to_contain_text("The server does not answer")
        page.unroute("**/page/events*")
        expect(curve).to_be_visible(timeout=60 * SECONDS)

        page.get_by_role("button", name="Stop and keep the best").click()
        expect(page.locator(".badge").first).to_have_text("stopped", timeout=30 * SECONDS)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".badge").first).to_have_text("running", timeout=60 * SECONDS)
        page.goto(f"{served.url}/#/runs")
        card = page.locator(".card", has_text="runs/pretrain-handbook")
        expect(card).to_contain_text("model from nothing")
        card.get_by_role("button", name="Stop and keep the best").click()
        expect(card.get_by_role("button", name="Go on")).to_be_visible(timeout=30 * SECONDS)


@pytest.mark.parametrize(
    ("path", "status", "line"),
    [
        ("**/page/start", 409, "runs/learn is being written by another riyaz; wait for it, or stop it"),
        ("**/page/start", 507, "the disk is full; free some space"),
    ],
)
def test_a_refusal_is_one_line_in_the_page(browser, served, path, status, line):
    body = {"error": {"message": line, "type": "x", "param": None, "code": None}}
    with Visit(browser, served, "learn", routes={path: json_of(body, status)}) as visit:
        page = visit.page
        page.get_by_label("Text to learn from").fill("handbook")
        page.get_by_label("Text to learn from").press("Tab")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_have_text(line)
        assert page.get_by_label("Text to learn from").input_value() == "handbook"


def test_a_half_written_and_a_newer_run_say_so_in_one_line(browser, served, folder):
    for name, text in (("half", '{"arms": ['), ("newer", '{"schema": 99}')):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "settings.json").write_text("{}")
        (folder / name / "compare.json").write_text(text)
    with Visit(browser, served, "runs") as visit:
        page = visit.page
        expect(page.locator(".card", has_text="half")).to_contain_text("compare.json")
        expect(page.locator(".card", has_text="newer")).to_contain_text("another version")
        page.goto(f"{served.url}/#/run?path=newer")
        expect(page.locator("main")).to_contain_text("another version")


def test_a_hidden_page_asks_for_nothing(browser, served):
    def with_one_that_runs(route) -> None:
        answer = route.fetch()
        runs = json.loads(answer.text().replace('"state":"done"', '"state":"running"'))
        route.fulfill(response=answer, json=runs)

    with Visit(browser, served, "run?path=workshop") as visit:
        page = visit.page
        page.clock.install()  # a minute passes at once
        page.route("**/page/runs", with_one_that_runs)
        page.reload()
        expect(page.locator(".pick")).to_be_visible()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))

        def asked_in_a_minute() -> list[str]:
            page.clock.run_for(SECONDS)
            asked.clear()
            page.clock.run_for(60 * SECONDS)
            return asked

        page.goto(f"{served.url}/#/runs")
        expect(page.locator(".badge", has_text="running").first).to_be_visible()
        assert asked_in_a_minute(), "a page that is seen asks again and again while one runs"
        hide = "Object.defineProperty(document, 'hidden', { get: () => true })"
        page.evaluate(f"{hide}; document.dispatchEvent(new Event('visibilitychange'))")
        assert asked_in_a_minute() == []
        page.goto(f"{served.url}/#/run?path=workshop")
        expect(page.locator(".pick")).to_be_visible()
        assert asked_in_a_minute() == []


def test_votes_that_are_enough_begin_a_run_that_learns_from_them(browser, served, folder, monkeypatch):
    from axe_playwright_python.sync_playwright import Axe

    monkeypatch.setattr(starting, "_riyaz", lambda: [sys.executable, str(pretend_run.RUN)])
    monkeypatch.setenv("PYTHONPATH", f"{pretend_run.RUN.parents[2] / 'src'}{os.pathsep}{pretend_run.RUN.parent}")
    (folder / "preferences.jsonl").unlink(missing_ok=True)
    vote = {"a": {"model": "tiny", "text": "yes"}, "b": {"model": "other", "text": "no"}}
    for number in range(19):
        served.post("/page/votes", {"prompt": f"question {number}", **vote, "choice": "a"})
    served.post("/page/votes", {"prompt": "another", **vote, "choice": "tie"})
    with Visit(browser, served, "side", 360, bypass_csp=True) as visit:
        page = visit.page
        expect(page.get_by_role("button", name="Train on the votes")).to_be_disabled()
        why = "Training needs 20 different prompts; 19 votes on 19 can be learned from so far."
        expect(page.get_by_text(why)).to_be_visible()
        served.post("/page/votes", {"prompt": "one more", **vote, "choice": "b"})
        page.reload()
        method = page.get_by_label("Method")
        expect(method.locator("option")).to_have_text(list(from_votes()))
        method.select_option("orpo")
        expect(page.get_by_label("Base model")).to_have_value("tiny")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= 360
        page.get_by_role("button", name="Train on these 20 votes").click()
        expect(page.locator(".badge").first).to_have_text("running")
        expect(page.locator("h1")).to_contain_text("runs/orpo-tiny-")
        expect(page.locator(".command").first).to_contain_text("--methods zero_shot,orpo")
        expect(page.get_by_text("Notes of the run")).to_be_visible()  # it hears signals now
        page.get_by_role("button", name="Stop and keep the best").click()
        expect(page.locator(".badge").first).to_have_text("stopped")
        visit.assert_quiet()
    (folder / "preferences.jsonl").unlink()
    shutil.rmtree(folder / "runs")


def test_what_the_server_says_against_a_training_is_one_line(browser, served, folder):
    learning = {"votes": 30, "prompts": 30, "least": 20, "methods": list(from_votes())}
    board = {"path": "preferences.jsonl", "votes": 30, "models": [], "training": learning}
    refusal = {"error": {"message": "runs/x is being written by another riyaz; wait for it, or stop it"}}
    routes = {"**/page/votes": json_of(board), "**/page/votes/train": json_of(refusal, 409)}
    with Visit(browser, served, "side", routes=routes) as visit:
        visit.page.get_by_role("button", name="Train on these 30 votes").click()
        expect(visit.page.get_by_role("alert")).to_contain_text("is being written by another riyaz")
        assert visit.outside == [] and visit.dialogs == []
