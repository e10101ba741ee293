"""Every screen in a browser: no errors, no other origin, axe, 360 px, both themes, keyboard, attacks in texts."""

import json
import subprocess
import sys

import pytest
from conftest import LONG
from playwright.sync_api import expect
from visits import Visit, frames, json_of, stream_of

SCREENS = [
    "chat",
    "next",
    "inside",
    "side",
    "decide",
    "data",
    "compare",
    "runs",
    "documents",
    "lesson",
    "learn",
    "limits",
]
ATTACKS = [
    "<img src=x onerror=window.pwned=1>",
    "<script>window.pwned=1</script>",
    "[click](javascript:window.pwned=1)",
    "![x](http://localhost:9/leak?q=secret)",
    "[![x][r]](http://localhost:9/)\n\n[r]: http://localhost:9/pixel.png",
    "<svg onload=window.pwned=1><a xlink:href='javascript:window.pwned=1'>x</a></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=1></style></mglyph></table></mtext></math>",
    "<form action=http://localhost:9><input name=x><button>go</button></form>",
    "<a href='data:text/html,<script>opener.pwned=1</script>'>x</a><style>*{background:url(http://localhost:9/s)}</style>",
    "```html\n<script>window.pwned=1</script>\n```",
    "<details open ontoggle=window.pwned=1>x</details>",
]


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_opens_in_order(browser, served, screen):
    from axe_playwright_python.sync_playwright import Axe

    for width, theme in ((1300, "light"), (360, "dark")):
        with Visit(browser, served, screen, width, theme, bypass_csp=True) as visit:
            expect(visit.page.locator("main h1").first).to_be_attached()
            visit.page.wait_for_load_state("networkidle")
            found = Axe().run(visit.page)
            assert found.violations_count == 0, found.generate_report()
            assert visit.width() <= width
            visit.assert_quiet()


CONTROLS = """() => [...document.querySelectorAll("a, button, input, select, textarea, summary")]
  .filter(e => e.checkVisibility() && !e.disabled && !(e.type === "radio" && !e.checked))
  .map((e, place) => { e.dataset.control = place; return place; })"""
FOCUSED = """() => {
  const e = document.activeElement, seen = e.closest("label.button, .choice label") ?? e;
  const drawn = [seen, seen.querySelector("span") ?? seen].some(x => getComputedStyle(x).outlineStyle !== "none");
  return [e.dataset.control ?? "", drawn]; }"""


@pytest.mark.parametrize("screen", [*SCREENS, "run?path=workshop"])
def test_every_control_is_reached_by_tab_and_shows_it(browser, served, screen):
    with Visit(browser, served, screen) as visit:
        page = visit.page
        page.wait_for_load_state("networkidle")
        wanted = {str(place) for place in page.evaluate(CONTROLS)}
        assert len(wanted) > 10
        reached: dict[str, bool] = {}
        for _ in range(3 * len(wanted)):
            page.keyboard.press("Tab")
            place, drawn = page.evaluate(FOCUSED)
            reached[place] = drawn
        assert wanted <= reached.keys()
        assert all(reached[place] for place in wanted), "the focus is drawn"


def test_a_question_is_edited_and_its_first_version_stays(browser, served):
    with Visit(browser, served, "chat", routes={"**/v1/chat/completions": stream_of(["an ", "answer"])}) as visit:
        page = visit.page
        page.fill("#question", "the card")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Edit").click()
        page.get_by_label("Ask it in other words").fill("the money")
        page.locator(".turn.user").get_by_role("button", name="Ask").click()
        expect(page.locator(".turn.user")).to_contain_text("the money")
        expect(page.locator(".turn.user .versions")).to_contain_text("2 of 2")
        page.locator(".turn.user").get_by_role("button", name="Previous version").click()
        expect(page.locator(".turn.user")).to_contain_text("the card")
        visit.assert_quiet()


def test_the_request_is_copied_as_commands_that_work(browser, served):
    with Visit(browser, served, "chat", permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.page
        page.locator("summary", has_text="System prompt").click()
        page.get_by_label("Longest answer").fill("4")
        page.get_by_label("System prompt").fill('Say it\'s "so"')
        page.fill("#question", "the card")
        said = {}
        for name in ("curl", "Python"):
            page.get_by_role("button", name=f"Copy as {name}").click()
            expect(page.get_by_text("Copied")).to_be_visible()
            said[name] = page.evaluate("navigator.clipboard.readText()")
            expect(page.get_by_text("Copied")).to_have_count(0)
        visit.assert_quiet()
    done = subprocess.run(["sh", "-c", said["curl"]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("data: [DONE]"), done
    done = subprocess.run([sys.executable, "-c", said["Python"]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip(), done


def test_the_policy_holds_and_the_token_leaves_the_address(browser, served):
    with Visit(browser, served, "next") as visit:
        expect(visit.page.locator(".bars li")).to_have_count(10)
        assert "token" not in visit.page.url and visit.page.url.endswith("#/next")
        visit.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=1>')")
        frames(visit.page, 12)
        assert visit.page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in error for error in visit.errors)


def test_a_wrong_token_is_one_line(browser, served):
    with Visit(browser, served, "runs", token="wrong") as visit:
        line = visit.page.get_by_role("alert").first
        expect(line).to_contain_text("Open the link that `riyaz ui` printed")


def test_a_chat_streams_shows_tokens_and_branches_by_keyboard(browser, served):
    with Visit(browser, served, "chat") as visit:
        page = visit.page
        page.locator("summary", has_text="System prompt").click()
        page.get_by_label("Longest answer").fill("6")
        page.focus("#question")
        page.keyboard.type("the card")
        page.keyboard.press("Enter")
        answer = page.locator(".turn.assistant")
        expect(answer.get_by_text("Answer again")).to_be_visible()
        page.locator("input[name=view]").nth(1).focus()
        page.keyboard.press("Space")
        expect(answer.locator(".t").first).to_be_visible()
        answer.locator(".t").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".inspector")).to_contain_text("Token 2")
        expect(page.locator(".inspector .bars li")).to_have_count(10)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(".versions")).to_contain_text("2 of 2")
        expect(answer.get_by_text("Answer again")).to_be_visible()
        page.reload()
        expect(page.locator(".turn.user")).to_contain_text("the card")
        expect(page.locator(".versions")).to_contain_text("2 of 2")
        visit.assert_quiet()


def test_an_answer_stops_and_its_first_part_stays(browser, served):
    with Visit(browser, served, "chat") as visit:
        page = visit.page
        page.locator("summary", has_text="System prompt").click()
        page.get_by_label("Longest answer").fill("30000")
        page.get_by_label("Temperature").fill("0")  # else the model may draw its end token at any time
        page.fill("#question", "the card")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".pulse")).to_be_visible()
        page.fill("#question", "what comes next")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".turn.assistant .actions")).to_be_visible()
        expect(page.get_by_role("button", name="Ask")).to_be_visible()
        expect(page.locator(".turn.user")).to_have_count(1)
        expect(page.locator("#question")).to_have_value("what comes next")
        visit.assert_quiet()


def test_attacks_in_answers_rows_and_passages_do_nothing(browser, served):
    rendered = [{"where": text, "prompt": text, "answer": text} for text in ATTACKS]
    report = {
        "rows": {"train": 1}, "duplicates": 0, "conflicts": 0, "leakage": None, "unseen_labels": [], "notes": ATTACKS,
        "labels": {text: {"train": 1} for text in ATTACKS}, "slices": dict.fromkeys(ATTACKS, 1),
    }  # fmt: skip
    data = {
        "format": ATTACKS[0], "columns": ATTACKS, "rows": 12, "task": {"kind": ATTACKS[0], "why": ATTACKS[1]},
        "model": "tiny", "examples": [{**each, "answers": ATTACKS} for each in rendered], "rendered": rendered,
        "report": report,
    }  # fmt: skip
    passages = [{"doc_id": text, "title": text, "text": text, "start": 0, "end": 9} for text in ATTACKS]
    collection = {"path": ATTACKS[0], "documents": [], "passages": 3}
    routes = {
        "**/v1/chat/completions": stream_of([f"{text}\n\n" for text in ATTACKS]),
        "**/page/data*": json_of({"data": data}),
        "**/page/collections": json_of({"collections": [collection]}),
        "**/page/search": json_of({"passages": passages}),
    }
    with Visit(browser, served, "chat", routes=routes) as visit:
        page = visit.page
        page.fill("#question", "x")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Answer again")).to_be_visible()
        assert page.locator(".markdown :is(img, form, svg, iframe, style, details)").count() == 0
        expect(page.locator(".markdown").first).to_contain_text("<img src=x onerror=window.pwned=1>")
        hrefs = page.eval_on_selector_all(".markdown a", "all => all.map(a => a.getAttribute('href'))")
        assert all(href is None or href.startswith("http") for href in hrefs)
        page.get_by_text("Tokens", exact=True).click()
        expect(page.locator(".tokens")).to_contain_text("onerror=window.pwned=1")
        page.goto(f"{served.url}/#/data?path=rows.jsonl")
        expect(page.locator(".rendered").first).to_contain_text("onerror")
        page.goto(f"{served.url}/#/documents?query=x")
        page.get_by_role("button", name="Search").click()
        expect(page.locator(".passage").first).to_contain_text("onerror")
        assert visit.width() <= 1300
        visit.assert_quiet()


PACED = """() => {
  const plain = window.fetch, words = n => n % 40 ? `word${n} ` : "end.\\n";
  const top = Array.from({ length: 10 }, (_, n) => ({ token: `w${n}`, logprob: -1 - n }));
  const line = n => `data: ${JSON.stringify({ choices: [{ delta: { content: words(n) }, finish_reason: null,
    logprobs: { content: [{ token: words(n), logprob: -(n % 5), top_logprobs: top }] } }] })}\\n\\n`;
  window.fetch = (path, options) => {
    if (!String(path).includes("chat/completions")) return plain(path, options);
    let sent = 0;
    const body = new ReadableStream({ async pull(to) {
      await new Promise(done => setTimeout(done, 20));
      let text = "";
      for (let n = 0; n < 25 && sent < 10000; n += 1) text += line(sent++);
      to.enqueue(new TextEncoder().encode(text));
      if (sent >= 10000) { to.enqueue(new TextEncoder().encode("data: [DONE]\\n\\n")); to.close(); }
    } });
    return Promise.resolve(new Response(body, { headers: { "content-type": "text/event-stream" } }));
  };
}"""
FRAMES = """() => { window.frames_ = []; let last = performance.now();
  const tick = now => { window.frames_.push(now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick); }"""


@pytest.mark.parametrize("view", ["Text", "Tokens"])
def test_ten_thousand_tokens_stay_above_thirty_frames(browser, served, view):
    """About 1,000 tokens a second, many times what a CPU makes."""
    with Visit(browser, served, "chat") as visit:
        page = visit.page
        expect(page.locator("#question")).to_be_visible()
        page.get_by_text(view, exact=True).click()
        page.evaluate(PACED)
        page.evaluate(FRAMES)
        page.fill("#question", "x")
        page.keyboard.press("Enter")
        shown = []
        while page.locator(".pulse").is_visible():
            shown.append(len(page.locator(".turn.assistant").inner_text()))
            frames(page, 12)
        assert len(set(shown)) > 10, "the answer is drawn while it grows"
        expect(page.get_by_text("10,000 tokens")).to_be_visible(timeout=90_000)
        times = page.evaluate("window.frames_")
        rate = 1000 * len(times) / sum(times)
        print(f"{view}: {rate:.0f} frames a second, longest {max(times):.0f} ms")
        assert rate > 30


def test_the_sliders_move_the_bars_and_a_bar_goes_on(browser, served):
    with Visit(browser, served, "next") as visit:
        page = visit.page
        bars = page.locator(".bars li")
        expect(bars).to_have_count(10)
        first = page.locator(".bars .share").first.inner_text()
        page.get_by_label("Temperature").focus()
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
        expect(page.locator(".bars .share").first).not_to_have_text(first)
        page.get_by_label("Top-p").focus()
        page.keyboard.press("Home")
        expect(page.locator(".bars .cut").first).to_be_visible()
        before = page.get_by_label("Text").input_value()
        page.locator(".bars button").first.click()
        assert page.get_by_label("Text").input_value() != before
        expect(page.locator(".story li")).to_have_count(3)
        visit.assert_quiet()


def test_german_words_are_not_cut_at_360_pixels(browser, served):
    with Visit(browser, served, "data", 360) as visit:
        visit.page.get_by_text("Look in the folder").click()
        entry = visit.page.locator(".entry", has_text=LONG)
        expect(entry).to_be_visible()
        assert visit.width() <= 360
        cut = entry.evaluate("e => e.scrollWidth > e.clientWidth + 1")
        assert not cut


def test_nothing_moves_where_less_motion_is_wanted(browser, served):
    with Visit(browser, served, "next", reduced_motion="reduce") as visit:
        expect(visit.page.locator(".bars li")).to_have_count(10)
        moving = "e => getComputedStyle(e).transitionDuration !== '0s' || getComputedStyle(e).animationName !== 'none'"
        assert not any(visit.page.locator(".fill").nth(n).evaluate(moving) for n in range(10))


def test_a_vote_is_a_row_of_preferences(browser, served, folder):
    with Visit(browser, served, "side") as visit:
        page = visit.page
        page.get_by_role("button", name="Add a model").click()
        page.get_by_label("Hide the names").check()
        page.get_by_label("Prompt").fill("the card")
        page.route("**/v1/chat/completions", stream_of(["good ", "answer"]))
        page.get_by_role("button", name="Ask 2 models").click()
        expect(page.locator(".column h2").first).to_have_text("Model A")
        page.get_by_role("button", name="A", exact=True).click()
        expect(page.get_by_text("Kept: A is better.")).to_be_visible()
        rows = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
        assert rows[-1]["chosen"] and rows[-1]["rejected"]
        visit.assert_quiet()


def test_a_file_is_uploaded_and_a_large_one_is_refused_before_it_is_sent(browser, served, folder):
    with Visit(browser, served, "data") as visit:
        page = visit.page
        page.set_input_files(
            "input[type=file]", {"name": "mine.jsonl", "mimeType": "", "buffer": b'{"prompt":"a","answer":"b"}\n'}
        )
        expect(page.get_by_label("Rows", exact=True)).to_have_value("uploads/mine.jsonl")
        assert (folder / "uploads/mine.jsonl").read_bytes().startswith(b'{"prompt"')
        assert visit.outside == []


def test_a_server_that_is_gone_is_one_line_and_comes_back(browser, served):
    with Visit(browser, served, "chat") as visit:
        page = visit.page
        page.fill("#question", "a question that is kept")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        page.unroute("**/v1/chat/completions")
        page.route("**/v1/chat/completions", stream_of(["here ", "again"]))
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".turn.assistant")).to_contain_text("here again")


def test_the_bars_are_the_engines_probabilities(browser, served):
    """At a temperature and top-p: softmax over the whole vocabulary, then the fewest that reach top-p, as it draws."""
    import numpy as np

    from riyaz.engine.request import Sampling
    from riyaz.engine.sampling import probabilities

    asked = {"model": "tiny", "text": "The quick brown fox", "top": 1000}
    found = np.array([each["logprob"] for each in served.post("/page/next", asked).json()["candidates"]], np.float32)
    with Visit(browser, served, "next") as visit:
        page = visit.page
        expect(page.locator(".bars li")).to_have_count(10)
        for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (0.5, 0.8), (0.2, 0.3)):
            page.get_by_label("Temperature").fill(str(temperature))
            page.get_by_label("Top-p").fill(str(top_p))
            kept = probabilities(found, Sampling(temperature=temperature, top_p=top_p, seed=0))
            wanted = [f"{100 * p:.1f} %".replace("100.0", "100") for p in kept / kept.sum()][:10]
            shown = wanted + ["cut off"] * (10 - len(wanted))
            expect(page.locator(".bars .share")).to_have_text(shown)
