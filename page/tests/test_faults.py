"""What goes wrong while the page is open: killed servers and runs, two pages, lost models, a full disk, bad files."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from live_server import running
from playwright.sync_api import expect
from processes import Server, events_of, kill_run
from tiny_llama import write_hf_folder
from visits import Visit, drawn_until, frames

from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page

ROOT = Path(__file__).parents[2]
SECONDS = 1000
CONTEXT = 16384  # so that an answer takes seconds
GONE, TOKEN = "The server does not answer", "Open the link that `riyaz ui` printed"
MODEL = ("--model", "tiny", "--precision", "fp32")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model and texts."""
    write_hf_folder(tmp_path / "tiny", context=CONTEXT)
    shutil.copytree(ROOT / "examples/helpdesk/handbook", tmp_path / "handbook")
    return tmp_path


def begin(page, out: str = "runs/learn") -> None:
    """Start to train a model on the handbook."""
    page.get_by_label("Text to learn from").fill("handbook")
    page.get_by_label("Text to learn from").press("Tab")
    page.get_by_label("Budget").fill("3m")
    page.get_by_label("Folder of the run").fill(out)
    page.get_by_role("button", name="Start").click()


def badge(page, text: str) -> None:
    """Wait until the run on the screen is at this."""
    expect(page.locator(".badge").first).to_have_text(text, timeout=120 * SECONDS)


def step_tile(page):
    """Where the screen of a run shows its step."""
    return page.locator(".tiles > div", has_text="step").locator("b")


def step(page) -> int:
    """The step that the screen of a run shows."""
    shown = step_tile(page)
    return int(shown.inner_text().split(" of ")[0].replace(",", ""))


def written(run: Path) -> int:
    """The last step that a run wrote; its screen may be some steps behind."""
    return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def later(page, before: int) -> None:
    """Wait until the screen of a run shows a step after this one."""
    drawn_until(page, lambda: step(page) > before, "a later step")


def curve(page):
    """The curve of a pretraining."""
    return page.get_by_role("img", name="Loss in nats per token")


def ask(page, text: str, tokens: int) -> None:
    """Ask for an answer of so many tokens, the likeliest each time."""
    page.locator("summary", has_text="System prompt").click()
    page.get_by_label("Longest answer").fill(str(tokens))
    page.get_by_label("Temperature").fill("0")
    page.fill("#question", text)
    page.keyboard.press("Enter")


def test_a_run_is_followed_again_after_its_server_was_killed(browser, place):
    with Server(place, *MODEL) as server, Visit(browser, server, "learn", token=server.token) as visit:
        page = visit.page
        begin(page)
        badge(page, "running")
        expect(curve(page)).to_be_visible(timeout=120 * SECONDS)
        expect(step_tile(page)).to_be_visible()  # with the first steps, not at the next look
        server.kill()
        expect(page.get_by_role("alert").first).to_contain_text(GONE)
        expect(curve(page)).to_be_visible()
        before = step(page)

        server.start()
        expect(page.get_by_role("alert").first).to_contain_text(TOKEN, timeout=60 * SECONDS)
        visit.context.new_page().goto(server.link)  # as `riyaz ui` does
        expect(page.get_by_role("alert")).to_have_count(0, timeout=60 * SECONDS)
        expect(curve(page)).to_be_visible()
        badge(page, "running")
        later(page, before)
        assert [each["event"] for each in events_of(place / "runs/learn")].count("begun") == 1, "it never stopped"
        page.get_by_role("button", name="Stop and keep the best").click()
        badge(page, "stopped")


def test_an_answer_whose_server_is_killed_keeps_its_first_part(browser, place):
    with Server(place, *MODEL) as server, Visit(browser, server, "chat", token=server.token) as visit:
        page = visit.page
        ask(page, "the card", CONTEXT - 1000)
        answer = page.locator(".turn.assistant")
        expect(answer.locator(".markdown")).not_to_be_empty()
        server.kill(signal.SIGSTOP)
        frames(page, 30)
        said = answer.locator(".markdown").inner_text()
        assert len(said) > 20 and page.locator(".pulse").is_visible()
        server.kill()
        expect(answer.get_by_role("alert")).to_contain_text(GONE)
        assert answer.locator(".markdown").inner_text() == said
        page.get_by_label("Longest answer").fill("8")

        server.start()
        visit.context.new_page().goto(server.link)
        answer.get_by_role("button", name="Try again").click()
        expect(answer.get_by_text("8 tokens")).to_be_visible()
        expect(page.locator(".versions")).to_contain_text("2 of 2")
        answer.get_by_role("button", name="Previous version").click()
        assert answer.locator(".markdown").inner_text() == said


def test_a_killed_run_goes_on_from_the_page(browser, served, folder):
    with Visit(browser, served, "learn") as visit:
        page = visit.page
        begin(page, "runs/killed")
        badge(page, "running")
        page.wait_for_selector(".samples", timeout=120 * SECONDS)
        kill_run(folder / "runs/killed")
        badge(page, "cut short")
        expect(curve(page)).to_be_visible()
        before = written(folder / "runs/killed")
        page.goto(f"{served.url}/#/runs")
        card = page.locator(".card", has_text="runs/killed")
        expect(card.locator(".badge")).to_have_text("cut")
        card.get_by_role("link", name="runs/killed").click()
        page.get_by_role("button", name="Go on").click()
        badge(page, "running")
        expect(curve(page)).to_be_visible()
        later(page, before)
        page.get_by_role("button", name="Stop and keep the best").click()
        badge(page, "stopped")
        assert visit.dialogs == [] and visit.outside == []


def test_two_pages_begin_and_follow_one_run(browser, served, folder):
    with Visit(browser, served, "learn") as one, Visit(browser, served, "learn") as two:
        begin(one.page, "runs/shared")
        begin(two.page, "runs/shared")
        expect(two.page.get_by_role("alert")).to_contain_text("is being written by another riyaz")
        assert two.page.get_by_label("Text to learn from").input_value() == "handbook"
        badge(one.page, "running")
        two.page.goto(f"{served.url}/#/run?path=runs/shared")
        for visit in (one, two):
            expect(curve(visit.page)).to_be_visible(timeout=120 * SECONDS)
        two.page.get_by_role("button", name="Stop and keep the best").click()
        badge(two.page, "stopped")
        badge(one.page, "stopped")
        before = step(one.page)
        for visit in (one, two):
            visit.page.get_by_role("button", name="Go on").click()
        badge(one.page, "running")
        badge(two.page, "running")
        later(one.page, before)
        one.page.get_by_role("button", name="Stop and keep the best").click()
        badge(one.page, "stopped")
        begun = [each for each in events_of(folder / "runs/shared") if each["event"] == "begun"]
        assert len(begun) == 2, "one start and one going on"


def test_a_model_that_is_deleted_answers_on_and_is_missed_in_one_line(browser, place):
    with Server(place, *MODEL) as server, Visit(browser, server, "chat", token=server.token) as visit:
        page = visit.page
        shutil.rmtree(place / "tiny")
        ask(page, "the card", 6)
        expect(page.locator(".turn.assistant").get_by_text("6 tokens")).to_be_visible()
        visit.assert_quiet()
        page.goto(f"{server.url}/#/compare")
        page.get_by_label("Rows with questions and answers").fill("handbook")
        page.get_by_label("Rows with questions and answers").press("Tab")
        page.get_by_role("combobox", name="Base model").fill("./tiny")
        page.get_by_role("button", name="Plan and estimate").click()
        expect(page.get_by_role("alert")).to_have_text("there is no './tiny' in the page's folder")
        server.kill()
        with pytest.raises(AssertionError, match="did not start"):
            server.start()  # one line on stderr
        server.command = [each for each in server.command if each not in MODEL]
        server.start()  # no model was pulled either
        page.goto(server.link)
        expect(page.locator(".turn.user")).to_contain_text("the card")
        expect(page.locator("main")).to_contain_text("two samples that come with Riyaz answer")


def test_an_adapter_that_another_page_removes_is_missed_in_one_line(browser, served):
    with Visit(browser, served, "chat?model=gone") as visit:
        page = visit.page
        expect(page.get_by_role("combobox", name="Model")).to_have_value("gone")
        page.fill("#question", "the card")
        page.keyboard.press("Enter")
        answer = page.locator(".turn.assistant")
        expect(answer.get_by_role("alert")).to_contain_text("there is no model 'gone'")
        page.get_by_role("combobox", name="Model").select_option("tiny")
        page.locator("summary", has_text="System prompt").click()
        page.get_by_label("Longest answer").fill("6")
        answer.get_by_role("button", name="Try again").click()
        expect(answer.get_by_text("6 tokens")).to_be_visible()
        expect(page.locator(".turn.user")).to_contain_text("the card")


def test_a_full_disk_is_one_line_and_loses_nothing(browser, place, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    model = ("--model", str(place / "tiny"), "--precision", "fp32")
    with Server(disk, *model, mounted=24 * 2**20) as server:
        seen = Path(f"/proc/{server.process.pid}/root{disk}")  # the disk as the server sees it
        with Visit(browser, server, "data", token=server.token) as visit:
            page = visit.page
            row = b'{"prompt":"a","answer":"b"}\n'
            page.set_input_files("input[type=file]", {"name": "small.jsonl", "mimeType": "", "buffer": row})
            expect(page.get_by_label("Rows", exact=True)).to_have_value("uploads/small.jsonl")
            page.set_input_files("input[type=file]", {"name": "large.jsonl", "mimeType": "", "buffer": row * 400_000})
            full = "the disk is full: nothing was kept; free some space"
            expect(page.get_by_role("alert").first).to_contain_text(full)
            assert [path.name for path in (seen / "uploads").iterdir()] == ["small.jsonl"]
            fill(seen / "filler")

            page.goto(f"{server.url}/#/side")
            page.get_by_role("button", name="Add a model").click()
            page.get_by_label("Prompt").fill("the card")
            page.get_by_role("button", name="Ask 2 models").click()
            expect(page.locator(".column .markdown").first).not_to_be_empty()
            page.get_by_role("button", name="Stop").click()
            page.get_by_role("button", name="Equally good").click()
            expect(page.get_by_role("alert")).to_contain_text("the disk is full")
            assert (seen / "preferences.jsonl").read_bytes() == b""
            (seen / "filler").unlink()
            page.get_by_role("button", name="Equally good").click()
            expect(page.get_by_text("Kept: equally good.")).to_be_visible()
            assert (seen / "preferences.jsonl").read_bytes().count(b"\n") == 1

            shutil.copytree(place / "handbook", seen / "handbook")
            page.goto(f"{server.url}/#/learn")
            fill(seen / "filler")
            begin(page)
            badge(page, "failed")
            expect(page.get_by_role("alert")).to_contain_text("the disk is full")
            (seen / "filler").unlink()
            page.goto(f"{server.url}/#/learn")
            begin(page)
            badge(page, "running")
            expect(curve(page)).to_be_visible(timeout=120 * SECONDS)
            fill(seen / "filler")
            badge(page, "failed")
            expect(page.get_by_role("alert").first).to_contain_text("the disk is full")
            expect(curve(page)).to_be_visible()
            kill_run(seen / "runs/learn")


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                return


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("compare.json", '{"arms": [', "compare.json"),
        ("compare.json", '{"schema": 99}', "another version"),
        ("run.json", '{"status": "running", "mod', "run.json"),
        ("run.json", '{"format": 99}', "run.json"),
        ("limits.json", '{"suites": [{"name"', "limits.json"),
        ("ternarize.json", "\x00\x00\x00\x00", "ternarize.json"),
    ],
)
def test_a_damaged_run_is_one_line_and_its_events_are_shown(browser, served, folder, name, text, line):
    place = folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if name == "compare.json":
        (place / "settings.json").write_text('{"settings": {"se')
    (place / name).write_text(text)
    note = '{"event": "note", "version": 1, "text": "a note before"}\n'
    arm = '{"event": "arm", "version": 1, "arm": {"method": "novel", "status": "ok", "score": 0.5}}\n'
    newer = '{"event": "progress", "version": 2, "text": {"of": "a later version"}}\n'
    (place / "events.jsonl").write_text(note + arm + newer + "[1]\n\x00\x00\n" + '{"event": "no')
    with Visit(browser, served, "run?path=damaged") as visit:
        page = visit.page
        expect(page.get_by_role("alert").filter(has_text=line)).to_have_count(1)
        expect(page.locator(".badge").first).to_have_text("unreadable")
        if name == "compare.json":
            expect(page.locator(".arms")).to_contain_text("novel")
            page.get_by_text("Notes of the run").click()
            expect(page.get_by_text("a note before")).to_be_visible()
        visit.assert_quiet()
    shutil.rmtree(place)


@pytest.mark.parametrize("given", ["", "wrong"])
@pytest.mark.parametrize(
    "screen", ["next", "data?path=rows.jsonl", "runs", "run?path=workshop", "documents", "limits?path=x"]
)
def test_without_the_token_each_screen_says_so_in_one_line(browser, served, given, screen):
    with Visit(browser, served, screen, token=given) as visit:
        line = visit.page.get_by_role("alert")
        expect(line.first).to_contain_text(TOKEN)
        assert line.count() == 1 and "rows.jsonl" not in line.inner_text()
        visit.page.goto(f"{served.url}/#/{screen}&token={served.state.page.token}".replace(
            f"{screen}&", f"{screen}{'&' if '?' in screen else '?'}"))  # fmt: skip
        if screen != "limits?path=x":
            expect(visit.page.get_by_role("alert")).to_have_count(0, timeout=30 * SECONDS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("noise.jsonl", bytes(range(256)) * 40),
        ("cut.jsonl", b'{"prompt": "a", "answer": "b"}\n{"prompt": "c", "ans'),
        ("empty.csv", b""),
        ("latin.csv", b"question,answer\ncaf\xe9 ol\xe9,no\xf1o\n"),
        ("cut.xlsx", b"PK\x03\x04" + b"\x00" * 60),
        ("noise.parquet", b"PAR1" + os.urandom(200) + b"PAR1"),
        ("packed.jsonl.gz", b"\x1f\x8b\x08\x00" + os.urandom(40)),
    ],
)
def test_an_unreadable_upload_is_one_line(browser, served, folder, name, data):
    with Visit(browser, served, "data") as visit:
        page = visit.page
        page.set_input_files("input[type=file]", {"name": name, "mimeType": "", "buffer": data})
        alert = page.get_by_role("alert")
        expect(alert).to_have_count(1, timeout=30 * SECONDS)
        said = alert.inner_text().removesuffix("Try again").strip()
        assert f"uploads/{name}" in said and "\n" not in said and "Traceback" not in said
        assert (folder / "uploads" / name).read_bytes() == data, "the file is kept as it came"
        assert visit.dialogs == [] and visit.outside == []


def test_a_huge_upload_is_refused_before_it_is_sent_and_while_it_comes(browser, place):
    opener = Opener("fp32")
    opener.serve(str(place / "tiny"))
    page_of = Page.of(place)
    with running(opener, page=page_of, max_upload_mb=1) as served, Visit(browser, served, "data") as visit:
        page = visit.page
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        huge = {"name": "huge.jsonl", "mimeType": "", "buffer": b"x" * (2**20 + 1)}
        page.get_by_text("Look in the folder").click()
        expect(page.locator(".entry", has_text="handbook")).to_be_visible()
        page.set_input_files("input[type=file]", huge)
        expect(page.get_by_role("alert")).to_contain_text("huge.jsonl has 1.0 MB, and an upload may have 1.0 MB")
        assert "POST" not in sent
    with running(opener, page=page_of, max_upload_mb=1) as served:  # a page that does not know the limit
        known = {"**/page/info": lambda route: route.fulfill(status=503, json={})}
        with Visit(browser, served, "data", routes=known) as visit:
            visit.page.set_input_files("input[type=file]", huge)
            expect(visit.page.get_by_role("alert")).to_contain_text("the file is too large: at most 1 MB are taken")
            assert not list((place / "uploads").glob("*"))
