"""How a run learns, in a browser: a real tiny pretraining, gone through by slider and keys, as its file has it."""

import json
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect
from visits import Visit

OPTIONS = ("--tokenizer", "bytes", "--layers", "2", "--width", "32", "--heads", "2", "--context", "32", "--batch", "4",
           "--steps", "12", "--validate-every", "3", "--compute", "float32", "--threads", "1")  # fmt: skip


@pytest.fixture(scope="module")
def lines(folder):
    """The recorded lines of a run in the page's folder."""
    command = [sys.executable, "-m", "riyaz", "pretrain", "handbook", "--out", "scrubbed", *OPTIONS]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    yield [json.loads(line) for line in (folder / "scrubbed/learned.jsonl").read_text().splitlines()]
    shutil.rmtree(folder / "scrubbed")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (360, "dark")])
def test_training_is_scrubbed_through(browser, served, folder, lines, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    with Visit(browser, served, "run?path=scrubbed", width, theme, bypass_csp=True) as visit:
        page = visit.page
        part = page.locator(".learned")
        part.get_by_role("heading", name="How it learns").click()
        slider = part.get_by_role("slider", name="After step")
        last, first = lines[-1], lines[0]
        expect(part).to_contain_text("After step 12")
        expect(part.locator(".tokens-line .t")).to_have_count(len(last["text"]))
        expect(part.locator(".program dt code")).to_have_count(4)
        metrics = [json.loads(line) for line in (folder / "scrubbed/metrics.jsonl").read_text().splitlines()]
        expect(part.locator(".program")).to_contain_text(f"loss {metrics[-1]['loss']:.3f} nats per token")
        expect(part.locator(".program")).to_contain_text("the model reads 128 tokens")
        drawn = part.get_by_role("img").first
        shortest = f"Outside the layers {float(format(last['gradients'][0], '.3g')):g}"
        assert (drawn.get_attribute("aria-label") or "").startswith(shortest)
        words = part.locator("table.lens tbody tr")
        expect(words).to_have_count(len(last["lens"]))
        expect(words.last.locator("td")).to_have_count(3)

        means = [sum(each["nats"] for each in line["text"][1:]) / (len(line["text"]) - 1) for line in lines]
        expect(part).to_contain_text(f"The mean of this text is {means[-1]:.2f} nats")
        slider.focus()
        page.keyboard.press("Home")
        expect(part).to_contain_text("0: before training")
        expect(part).to_contain_text(f"The mean of this text is {means[0]:.2f} nats")
        expect(part.locator(".program")).to_have_count(0)  # no step has been made
        page.keyboard.press("ArrowRight")
        expect(part).to_contain_text("The four lines of step 3")
        expect(part).to_contain_text(f"The mean of this text is {means[1]:.2f} nats")
        part.get_by_text("Every loss as a number").click()
        losses = part.get_by_role("region", name="Loss of every token").locator("td")
        expect(losses.nth(1)).to_have_text(f"{lines[1]['text'][1]['nats']:.2f}")
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width and first["gradients"] is None
        assert visit.outside == [] and visit.dialogs == []


def test_a_run_without_a_record_is_shown_as_before(browser, served, folder, lines):
    shutil.copytree(folder / "scrubbed", folder / "older")
    (folder / "older/learned.jsonl").unlink()
    with Visit(browser, served, "run?path=older") as visit:
        expect(visit.page.get_by_role("heading", name="What it writes")).to_be_visible()
        expect(visit.page.locator(".learned")).to_have_count(0)
        visit.page.wait_for_load_state("networkidle")
        visit.assert_quiet()
    (folder / "older/learned.jsonl").write_text('{"step": "one"}\n')
    with Visit(browser, served, "run?path=older") as visit:
        expect(visit.page.get_by_role("alert")).to_contain_text("learned.jsonl")
        expect(visit.page.get_by_role("heading", name="What it writes")).to_be_visible()
    shutil.rmtree(folder / "older")


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (360, "light")])
def test_an_arm_of_a_comparison_is_scrubbed_through(browser, served, folder, lines, width, theme):
    from axe_playwright_python.sync_playwright import Axe

    run, answer = folder / "adapted", 5
    for arm, kept in {"full": lines[:2], "lora": lines}.items():
        (run / "arms" / arm / "kept").mkdir(parents=True)
        rows = "".join(json.dumps(line | {"answer": answer}) + "\n" for line in kept)
        (run / "arms" / arm / "kept/learned.jsonl").write_text(rows)
    (run / "settings.json").write_text("{}")
    with Visit(browser, served, "run?path=adapted", width, theme, bypass_csp=True) as visit:
        page = visit.page
        page.get_by_role("heading", name="How it learns").click()
        part = page.locator(".learned")
        expect(part).to_contain_text("A validation row: the end of its prompt, and its answer")
        expect(part).to_contain_text(f"After step {lines[1]['step']}")
        page.get_by_label("Method").select_option("lora")
        expect(part).to_contain_text(f"After step {lines[-1]['step']}")
        answered = lines[-1]["text"][answer:]
        mean = sum(each["nats"] for each in answered) / len(answered)
        expect(part).to_contain_text(f"The mean of the answer, in bold type, is {mean:.2f} nats")
        expect(part.locator(".tokens-line .answer")).to_have_count(len(answered))
        expect(part).to_contain_text("every weight that is trained moves")
        part.get_by_role("slider", name="After step").focus()
        page.keyboard.press("Home")
        expect(part).to_contain_text("0: before training")
        page.wait_for_load_state("networkidle")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert visit.width() <= width and visit.outside == []
    shutil.rmtree(run)
