"""The screen Inside in a browser: its numbers are the route's; pointer, keys and slider; narrow, dark, and smooth."""

import statistics
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from live_server import Running, running
from native_models import lora_of
from playwright.sync_api import expect
from test_screens import ATTACKS, FRAMES
from tiny_llama import write_hf_folder
from visits import Visit, drawn_until, json_of

from riyaz import adapters
from riyaz.families import describe
from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page
from riyaz.sources import open_source

TEXT = "the card is lost and my card"
LAYERS = 12
TERNARY = "sample-animals-ternary"  # it comes with the package


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a model of twelve layers, and a LoRA on it."""
    folder = tmp_path_factory.mktemp("inside")
    base = write_hf_folder(folder / "tiny", layers=LAYERS, context=2048)
    (folder / "lora").mkdir()
    family = describe(open_source(base))
    adapters.peft.write(lora_of(base, 1, 4), folder / "lora", family, base=str(base))
    opener, page = Opener("fp32"), Page.of(folder, "riyaz ui")
    for name in ("tiny", "lora"):
        opener.serve(str(folder / name))
    opener.serve(TERNARY)
    with running(opener, page=page) as live:
        live.http.headers["x-riyaz-token"] = page.token
        yield live


def opened(browser, served, text=TEXT, more="", **options) -> Visit:
    visit = Visit(browser, served, f"inside?model=tiny&text={text}{more}", **options)
    expect(visit.page.locator(".chooser")).to_be_visible()
    return visit


def part(served: Running, name: str, **body):
    answer = served.post("/page/inside", {"model": "tiny", "text": TEXT, "part": name, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def whole(page) -> None:
    """Wait until every part below is there."""
    for name in ("Words to numbers", "Layers", "Attention", "One product, by hand", "Next word"):
        page.get_by_role("heading", name=name, exact=True).scroll_into_view_if_needed()
    expect(page.locator(".alike")).to_be_visible()
    expect(page.locator(".large-head")).to_be_visible()
    expect(page.get_by_text("all of one token")).to_be_visible()


def test_the_numbers_are_those_of_the_route(browser, served):
    wanted = part(served, "layers")
    with opened(browser, served) as visit:
        page = visit.page
        whole(page)
        rows = page.locator(".vectors tbody tr")
        expect(rows).to_have_count(len(wanted["tokens"]))
        assert [int(each) for each in page.locator(".vectors tbody td:nth-child(2)").all_inner_texts()] == [
            each["id"] for each in wanted["tokens"]
        ]
        page.get_by_role("button", name="Show the nearest tokens").click()
        near = part(served, "near")["near"]
        expect(rows.nth(2).locator("td").last).to_contain_text(f"{near[2][0]['cosine']:.2f}")
        page.locator("summary", has_text="Every layer as a table").click()
        lens = page.locator(".lens tbody tr")
        expect(lens).to_have_count(LAYERS + 1)
        last = wanted["layers"][-1]
        expect(lens.last).to_contain_text(f"{100 * last['lens'][0]['probability']:.1f} %")
        expect(lens.last.locator("td").first).to_have_text(f"{last['norm']:.1f}")
        product = part(served, "product")["product"]
        expect(page.get_by_text(f"{product['multiplications']:,}", exact=True)).to_be_visible()
        expect(page.locator("tr", has_text="the score of").locator("b")).to_have_text(f"{product['score']:.4f}")
        heads = part(served, "heads")["heads"]
        copies = sum(each["name"] == "copies" for each in heads)
        expect(page.locator(".alike")).to_contain_text(f"copies: {copies} of {len(heads)} heads")
        visit.assert_quiet()


def test_the_token_is_chosen_by_pointer_and_with_the_arrow_keys(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        tokens = page.get_by_role("radio")
        expect(tokens.last).to_have_attribute("aria-checked", "true")
        tokens.nth(2).click()
        for key, place in (("ArrowRight", 3), ("ArrowLeft", 2), ("Home", 0)):
            page.keyboard.press(key)
            expect(tokens.nth(place)).to_be_focused()
            expect(tokens.nth(place)).to_have_attribute("aria-checked", "true")
        wanted = part(served, "layers", at=0)
        expect(page.locator(".of-chosen .share").first).to_have_text(
            f"{100 * wanted['layers'][-1]['lens'][0]['probability']:.1f} %"
        )
        visit.assert_quiet()


def test_the_slider_goes_through_the_layers(browser, served):
    wanted = part(served, "layers")["layers"]
    with opened(browser, served) as visit:
        page = visit.page
        slider = page.get_by_label("Layer", exact=False).and_(page.locator("input[type=range]"))
        slider.focus()
        page.keyboard.press("Home")
        expect(page.locator(".of-chosen")).to_contain_text("Before the first layer")
        for place in (1, 2):
            page.keyboard.press("ArrowRight")
            expect(page.locator(".of-chosen")).to_contain_text(f"After layer {place} the stream has the length")
            expect(page.locator(".of-chosen")).to_contain_text(f"{wanted[place]['norm']:.1f}")
        visit.assert_quiet()


def test_heads_are_read_by_pointer_and_keys_and_named_by_what_was_measured(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        whole(page)
        page.get_by_role("combobox", name="Layer").select_option(label="4")
        page.locator(".heads button").nth(2).click()
        caption = page.locator(".large-head figcaption")
        expect(caption).to_contain_text("Layer 4, head 3")
        weights = part(served, "attention", layer=3, head=2)["attention"]["weights"]
        box = page.locator(".pointed").bounding_box()
        size = len(weights)
        page.locator(".pointed").hover(position={"x": box["width"] * 1.5 / size, "y": box["height"] * 4.5 / size})
        expect(caption).to_contain_text(f"with {100 * weights[4][1]:.1f} %")
        page.locator(".pointed").focus()
        page.keyboard.press("ArrowDown")
        expect(caption).to_contain_text(f"with {100 * weights[5][1]:.1f} %")
        page.keyboard.press("ArrowRight")
        expect(caption).to_contain_text(f"with {100 * weights[5][2]:.1f} %")
        head = next(each for each in part(served, "heads")["heads"] if (each["layer"], each["head"]) == (3, 2))
        rule = page.locator(".note", has_text="Layer 4, head 3")
        expect(rule).to_contain_text(f"on the first token in {round(100 * head['first'])} % of positions")
        assert "understand" not in page.locator("main").inner_text()
        visit.assert_quiet()


def test_the_codes_of_a_ternary_model_are_counted(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        page.get_by_role("heading", name="Weights in few bits").scroll_into_view_if_needed()
        expect(page.get_by_text("The file holds no weights as codes")).to_be_visible()
        page.get_by_role("combobox", name="Model").select_option(TERNARY)
        section = page.locator("section", has=page.get_by_role("heading", name="Weights in few bits"))
        counted = part(served, "codes", model=TERNARY)["codes"]
        kinds = {each["name"].split(".", 3)[-1] for each in counted}
        expect(section.locator("tbody tr")).to_have_count(len(kinds))
        own = [each for each in counted if each["name"].endswith("down_proj")]
        zeros = sum(each["counts"][1] for each in own) / sum(sum(each["counts"]) for each in own)
        row = section.locator("tbody tr", has_text="mlp.down_proj")
        expect(row).to_contain_text(f"{100 * zeros:.1f} %")
        expect(row).to_contain_text("-1 to 1")
        visit.assert_quiet()


def test_the_text_grows_word_by_word(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        whole(page)
        field = page.get_by_label("Text", exact=True)
        drawing = page.locator("section", has=page.get_by_role("heading", name="Next word"))
        drawing.get_by_label("Top-k").fill("1")
        expect(drawing.locator(".share").first).to_have_text("100 %")
        best = part(served, "layers")["next"][0]["text"]
        page.get_by_role("button", name="Draw one").click()
        expect(field).to_have_value(TEXT + best)
        expect(page.get_by_role("radio")).to_have_count(len(part(served, "layers", text=TEXT + best)["tokens"]))
        page.get_by_role("button", name="Draw word by word").click()
        drawn_until(page, lambda: len(field.input_value()) > len(TEXT + best) + 12, "several words")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("radio").first.click()
        expect(page.get_by_role("button", name="Draw one")).to_be_disabled()
        page.get_by_role("button", name="Go to the last token").click()
        expect(page.get_by_role("button", name="Draw one")).to_be_enabled()
        visit.assert_quiet()


def test_a_second_model_shows_what_changed(browser, served):
    with opened(browser, served, more="&before=lora") as visit:
        page = visit.page
        between = part(served, "before", before="lora")["before"]
        section = page.locator("section", has=page.get_by_role("heading", name="Before and after"))
        expect(section.locator("tbody td.figure")).to_have_text([f"{each:.4f}" for each in between["divergence"]])
        expect(section).to_contain_text("The lens differs by more than .01 nats")
        expect(section.locator(".touched .on")).to_have_count(0)  # `before` is the adapted one, so nothing was added
        page.get_by_role("combobox", name="Model").select_option("lora")
        page.get_by_label("Compared with").select_option("tiny")
        made = part(served, "weights", model="lora", before="tiny")["weights"]
        expect(section.locator(".touched .on")).to_contain_text(f"{len(made['linears'])} matrices")
        expect(section.get_by_role("img", name="Change of mlp.down_proj")).to_be_visible()
        page.get_by_label("Compared with").select_option("")
        expect(section).to_have_count(0)
        visit.assert_quiet()


def test_an_empty_text_offers_three_and_a_long_one_says_what_is_left_out(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        page.get_by_label("Text", exact=True).fill("")
        expect(page.get_by_text("Nothing to look into yet")).to_be_visible()
        for language in ("English", "German", "Hindi"):
            page.get_by_role("button", name=language).click()
            expect(page.get_by_role("radio").first).to_be_visible()
        page.get_by_label("Text", exact=True).fill("the card is lost " * 120)
        expect(page.locator(".inside > [role=status]")).to_contain_text("the last 256 tokens are read")
        whole(page)
        visit.assert_quiet()


def test_a_full_queue_is_asked_again_and_a_refusal_is_one_line(browser, served):
    left = [True, True]

    def queue(route):
        if left:
            left.pop()
            return route.fulfill(status=429, json={"error": {"message": "the queue is full", "param": None}})
        return route.continue_()

    with opened(browser, served, routes={"**/page/inside": queue}) as visit:
        assert left == [] and all("429" in error for error in visit.errors)
        visit.errors.clear()
        visit.page.route("**/page/inside", json_of({"error": {"message": "it is broken", "param": None}}, 400))
        visit.page.get_by_label("Text", exact=True).fill("my card")
        expect(visit.page.get_by_role("alert").first).to_contain_text("it is broken")


@pytest.mark.parametrize(("width", "theme"), [(1300, "light"), (1300, "dark"), (360, "light"), (360, "dark")])
def test_the_filled_screen_is_accessible_and_narrow(browser, served, width, theme):
    with opened(browser, served, more="&before=lora", width=width, theme=theme, bypass_csp=True) as visit:
        page = visit.page
        whole(page)
        page.get_by_role("button", name="Show the nearest tokens").click()
        page.locator("summary", has_text="Every layer as a table").click()
        expect(page.locator(".vectors thead th")).to_have_count(5)
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        assert visit.width() <= width
        visit.assert_quiet()


def test_attacks_in_the_text_do_nothing(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        for attack in ATTACKS[:2]:
            page.get_by_label("Text", exact=True).fill(attack)
            expect(page.get_by_role("radio").first).to_contain_text("<")
            whole(page)
        assert page.locator("main :is(img, iframe, math, script, svg)").count() == 0
        visit.assert_quiet()


def test_dragging_the_slider_is_smooth(browser, served):
    with opened(browser, served) as visit:
        page = visit.page
        page.locator("summary", has_text="Every layer as a table").click()
        slider = page.locator(".layered input[type=range]")
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.evaluate(FRAMES)
        for step in range(120):
            share = abs((step % 60) / 30 - 1)
            page.mouse.move(box["x"] + 5 + share * (box["width"] - 10), box["y"] + box["height"] / 2)
        times = page.evaluate("window.frames_")
        page.mouse.up()
        print(f"median frame {statistics.median(times):.1f} ms of {len(times)}")
        assert statistics.median(times) <= 17.5
        visit.assert_quiet()
