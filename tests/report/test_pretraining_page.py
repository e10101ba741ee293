"""The page and the terminal summary of a pretraining run: true to the three files, whole for half a run, and safe."""

import base64
import hashlib
import io
import json
import math
import re

import fake_page
import fake_run
import pytest
from rich.console import Console
from test_html import CLEAN_TAGS

from riyaz.errors import RiyazError
from riyaz.report.pretraining import pictures as run_pictures
from riyaz.report.pretraining import terminal as run_terminal
from riyaz.report.pretraining import words
from riyaz.results import StepMetrics

TAGS = CLEAN_TAGS | {"fieldset", "legend"}
SECTIONS = "learning next samples derived cost text made caveats"


def story(made: dict, metrics: list[dict]) -> str:
    return " ".join(words.story(fake_run.typed(made), fake_run.typed_metrics(metrics)))


@pytest.fixture(scope="module")
def whole() -> fake_page.Page:
    return fake_page.Page(fake_run.page(fake_run.run(), fake_run.metrics(), fake_run.samples()))


def test_the_loss_is_said_as_a_draw_in_plain_words():
    text = story(fake_run.run(), fake_run.metrics())
    assert "on average that is as uncertain as a draw from " in text and " tokens with equal chances, out of " in text


def test_the_page_is_well_formed_and_every_part_stands_there(whole):
    assert whole.problems == []
    ids = [a["id"] for _, a in whole.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert [a["id"] for tag, a in whole.elements if tag == "section"] == SECTIONS.split()
    for tag, attributes in whole.elements:
        for key in ("href", "aria-labelledby", "for"):
            target = (attributes.get(key) or "").removeprefix("#")
            assert not target or target in ids or target == "data:,", (tag, target)
    for said in (
        "What comes after “The quick brown fox”", "5.2 million parameters", "One seed.",
        "riyaz pretrain books --budget 15m --out first", "falls with the square root of the width", "2.13.0",
        "24,310,118", "ab" * 32, "3 validation blocks almost repeat training text",
    ):  # fmt: skip
        assert said in whole.text, said


def test_every_figure_is_that_of_the_files(whole):
    loss = fake_run.loss_at(fake_run.STEPS)
    for shown in (
        f"{loss:.3f}", f"{loss / math.log(2) / fake_run.BYTES:.3f}", "9,830,400", "11,302", "41 %", "3.3 × 10¹⁴",
        "1,384 MB", "14m 49s", "24,310,118", "336,664", "1.5 times its training text", "19.0 %", "␣jumped",
        "before training",
    ):  # fmt: skip
        assert shown in whole.text, shown
    for entry in fake_run.metrics():
        if "valid_loss" in entry:
            assert f"{entry['valid_loss']:.3f}" in whole.text and f"{entry['bits_per_byte']:.3f}" in whole.text
    for entry in fake_run.samples():
        for text in entry["texts"]:
            assert " ".join(text["text"].split()) in whole.text, "every text is in the table of all"
    assert f"{math.log(4096):.2f} for guessing evenly" in whole.text


def test_the_page_and_the_terminal_state_one_figure_in_bits_per_byte():
    """The result of the finished model, wherever its validations were: in the tile, the sentence and both pictures."""
    run = fake_run.run()
    run["result"] |= {"valid_loss": 3.5551, "bits_per_byte": 1.4207, "windows": 64}
    made = fake_run.page(run, fake_run.metrics(), fake_run.samples())
    text = fake_page.Page(made).text
    assert "bits per byte 1.421" in text and "which is 1.42 bits per byte" in text
    assert made.count(">finished: 1.421</text>") == 2 and made.count(">finished: 3.555</text>") == 2, "wide and narrow"
    assert "best:" not in made and "the finished model on" not in text
    run["plan"]["valid_windows"] = 16
    said = "it was judged on 16 pieces of held-out text, the line; the finished model on 64 pieces, the mark"
    assert said in fake_page.Page(fake_run.page(run, fake_run.metrics(), fake_run.samples())).text
    half = fake_run.page(fake_run.run(status="stopped", cost=None, result=None), fake_run.metrics(120), [])
    assert f">best: {fake_run.metrics(120)[-1]['bits_per_byte']:.3f}</text>" in half and "finished:" not in half


def test_steps_and_budget_are_said_in_sentences():
    said = " ".join(
        words.length(
            fake_run.typed(fake_run.run()),
            fake_run.typed_metrics(fake_run.metrics()),
        )
    )
    assert said == (
        "It had a budget of 15m 00s for everything, from reading the text to this page; it took 14m 49s. "
        "The plan was 1,200 steps: 864 s of training at 0.72 s a step, measured. "
        "In each step it read 32 pieces of 256 tokens (8,192 tokens), guessed every next token, and changed all its "
        "5.2 million weights a little, which took 0.7 s. "
        "After every 60 steps it was judged on 64 pieces of text that it never learned from."
    )
    asked = words.length(fake_run.typed(fake_run.run(asked={"steps": 1200}, derived=[])), [])
    assert asked[0] == "The plan was 1,200 steps." and "which took" not in " ".join(asked)
    assert words.length(fake_run.typed(EARLY), []) == []


def test_samples_are_folded_but_for_the_first_and_the_last():
    made = fake_run.page(fake_run.run(), fake_run.metrics(), fake_run.samples())
    shown, folded = made.partition("step by step</summary>")[::2]
    section = shown[shown.index('id="samples-title"') :]
    assert section.count('class="rendered"') == 2 and "before training" in section and "after step 1,200" in section
    assert folded.count('class="look"') == 9


def test_the_page_needs_no_script_and_fetches_nothing(whole):
    assert {tag for tag, _ in whole.elements} <= TAGS - {"script", "noscript"}
    policy = next(a["content"] or "" for _, a in whole.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(whole.blocks["style"].encode()).digest()).decode()
    assert (
        policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:") and "script" not in policy
    )
    for _, attributes in whole.elements:
        assert not {"src", "srcset", "action", "style", "background", "data", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(http" not in whole.blocks["style"] and "@import" not in whole.blocks["style"]


def test_text_of_the_model_and_of_files_stays_text():
    made = fake_run.page(*fake_run.attacked())
    page = fake_page.Page(made)
    assert page.problems == []
    assert {tag for tag, _ in page.elements} <= TAGS - {"script", "noscript"}
    clean = fake_page.Page(fake_run.page(fake_run.run(), fake_run.metrics(), fake_run.samples()))
    names = {name for _, attributes in page.elements for name in attributes}
    assert names <= {name for _, attributes in clean.elements for name in attributes}
    assert sum(tag == "meta" for tag, _ in page.elements) == 5 and "\x00" not in made and "\u202e" not in made
    for text in (fake_page.ATTACKS[0], fake_page.ATTACKS[6], fake_page.ATTACKS[9]):
        assert text in page.text, "shown as it is"


EARLY = {  # run.json before anything is known of the text
    "status": "running", "command": "", "resumed": [], "paths": [], "asked": {}, "text": {"bytes": 9, "sha256": "ab"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("run", "metrics", "samples"),
    [
        (EARLY, [], []),
        (fake_run.run(status="running"), [], []),
        (fake_run.run(status="stopped", cost=None, result=None), fake_run.metrics(30), []),
        (EARLY, fake_run.metrics(1), []),
        (fake_run.run(), fake_run.metrics(1), fake_run.samples()[:1]),
        (fake_run.run(), [{"step": 3, "loss": math.nan, "tokens_s": 0, "peak_share": 0}] * 2, [{"step": 0}]),
        (fake_run.run(), [{"step": s, "loss": 2.0, "valid_loss": 2.0, "bits_per_byte": 0.0, "tokens_s": 0.0,
                           "learning_rate": 0.0, "peak_share": 0.0} for s in (1, 2)],
         [{"step": 0, "texts": [{"prompt": "", "text": ""}]}]),
    ],
)  # fmt: skip
def test_a_run_of_which_little_is_there_is_a_page_too(run, metrics, samples):
    page = fake_page.Page(fake_run.page(run, metrics, samples))
    assert page.problems == []
    assert "nan" not in page.text.lower() and "inf " not in page.text.lower() and "None" not in page.text
    out = Console(file=io.StringIO(), width=100)
    said = (
        fake_run.typed(run),
        fake_run.typed_metrics(metrics),
        fake_run.typed_samples(samples),
    )
    run_terminal.print_run(*said, out)
    assert "None" not in out.file.getvalue() and "nan" not in out.file.getvalue()  # type: ignore[attr-defined]


def test_only_what_no_clock_decided_is_the_same_again():
    exact = {"steps": 6, "compute": "float32", "validate_every": 3}
    assert words.again(fake_run.typed(fake_run.run(asked=exact))).startswith("The same command on the same text")
    resumed = words.again(fake_run.typed(fake_run.run(asked=exact, resumed_with={"torch": "2.14"})))
    assert "continued with torch 2.14" in resumed and "no command gives the same" in resumed
    said = words.again(fake_run.typed(fake_run.run(asked={"budget": 900.0})))
    assert said.startswith("Some values come from the measured speed") and "plan.json" in said
    assert "with --layers 6 --heads 4 --width 256 --batch 32 --steps 1200 --validate-every 60, gives" in said


def test_the_story_says_how_it_ended():
    lines = fake_run.metrics()
    said = story(fake_run.run(), lines)
    assert "read 9.8 million tokens of text, 1.5 times its training text, in 14m 49s." in said
    assert "out of 4,096" in said and "a longer run would probably reach a lower one" in said
    for entry in lines[700:]:
        if "valid_loss" in entry:
            entry["valid_loss"] += (entry["step"] - 690) / 300
    lost = story(fake_run.run(), lines)
    assert "Its validation loss was lowest at step 660 of 1,200, but the folder holds the weights of step 1,200" in lost
    run = fake_run.run()
    run["result"]["best_step"] = 660
    said = story(run, lines)
    assert (
        "Its validation loss was lowest at step 660 of 1,200; the folder holds those weights. After that it "
        "memorised its training text." in said
    )
    assert "ended early at step 900 of 1,200: its validation loss had not fallen since step 660" in story(
        run, lines[:900]
    )
    assert "stopped at step 30 of 1,200; the same command with --resume" in story(
        fake_run.run(status="stopped"), fake_run.metrics(30)
    )
    assert "still running, or was killed" in story(fake_run.run(status="running"), lines)
    assert "never validated" in story(fake_run.run(result=None), [])


def test_what_to_keep_in_mind_follows_the_figures():
    run = fake_run.run()
    run["cost"] |= {"tokens": 5_000_000}
    run["text"] |= {"train_tokens": 1_000_000, "near_duplicates": 0}
    run["model"] |= {"parameters": 250_000}
    notes = " ".join(words.keep_in_mind(fake_run.typed(run), []))
    assert "read its text 5.0 times" in notes and "20 tokens were read per parameter" in notes
    assert "almost repeat" not in notes


def test_chosen_places_hold_first_and_last_and_are_dense_where_most_changes():
    assert words.spaced(5, 9) == [0, 1, 2, 3, 4]
    for count in (10, 11, 57, 1000):
        chosen = words.spaced(count, 9)
        assert len(set(chosen)) == 9 and chosen == sorted(chosen) and (chosen[0], chosen[-1]) == (0, count - 1)
    assert words.spaced(1000, 9)[4] < 100


def test_signs_figures_and_tokens_read_naturally():
    assert [words.token(t) for t in (" the", "\n", "", "  ", "a b\t", "x ")] == [
        "␣the",
        "⏎",
        "(empty)",
        "␣␣",
        "a b⇥",
        "x␣",
    ]
    assert [words.powers(v) for v in (3.28e14, 9.99e-3, 0, None)] == ["3.3 × 10¹⁴", "1.0 × 10⁻²", "–", "–"]
    assert [words.compact(v) for v in (83_200, 999_900, 5_246_208, 1.3e9)] == [
        "83,200",
        "1.0 million",
        "5.2 million",
        "1.3 billion",
    ]
    assert [words.chance(p) for p in (1e-5, 0.00024, 0.123, 1, None)] == ["<0.01 %", "0.02 %", "12.3 %", "100.0 %", "–"]


def test_a_long_line_is_drawn_by_means_and_pictures_follow_the_theme():
    found = [(float(step), float(step % 2)) for step in range(1, 10_001)]
    thinned = run_pictures.thin(found)
    assert len(thinned) == run_pictures.DRAWN
    assert thinned[0] == (13.0, 0.52) and sum(y for _, y in thinned) == pytest.approx(200)
    drawn = run_pictures.loss(
        fake_run.typed(fake_run.run()),
        fake_run.typed_metrics(fake_run.metrics()),
        520,
        "l",
    )
    assert drawn is not None and "style=" not in drawn and not re.findall(r"#[0-9a-f]{6}\b", drawn)
    assert ">every token equally likely: 8.32</text>" in drawn


def test_reading_takes_later_lines_and_forgives_only_a_torn_end(tmp_path):
    lines = [*fake_run.metrics(5), {"step": 4, "loss": 9.0}, {"step": 6, "loss": 8.0}]
    folder = fake_run.write(tmp_path / "run", lines=lines)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    run, metrics, samples = words.read_run(folder)
    assert run == fake_run.typed(fake_run.run()) and samples == fake_run.typed_samples(fake_run.samples())
    assert [entry.step for entry in metrics] == [1, 2, 3, 4, 5, 6] and metrics[3] == StepMetrics(4, 9.0)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(RiyazError, match=r"metrics.jsonl:8: is damaged"):
        words.read_run(folder)
    (folder / "run.json").write_text("[1]")
    with pytest.raises(RiyazError, match=r"run.json: the document is not an object"):
        words.read_run(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(RiyazError, match=r"run.json:1: is damaged"):
        words.read_run(folder)
    with pytest.raises(RiyazError, match="there is no pretraining run here"):
        words.read_run(tmp_path)


def test_the_verb_knows_a_pretraining_folder_by_its_files(tmp_path, capsys):
    from riyaz.cli.main import main

    folder = fake_run.write(
        tmp_path / "run",
        texts=[*fake_run.samples(), {"step": 1300, "texts": [{"prompt": "", "text": "\ud800"}]}],
    )
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"html": str(folder / "report.html")}
    first = (folder / "report.html").read_bytes()
    assert fake_page.Page(first.decode()).problems == []
    assert main(["report", str(folder)]) == 0 and capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == first, "the same files give the same bytes"
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.jsonl",
        "report.html",
        "run.json",
        "samples.jsonl",
    ]
    (folder / "samples.jsonl").write_text('{"step"\n')
    assert main(["report", str(folder)]) == 2
    assert "samples.jsonl:1: is damaged" in capsys.readouterr().err
    (folder / "run.json").unlink()
    assert main(["report", str(folder)]) == 2 and "riyaz pretrain" in capsys.readouterr().err


def test_the_terminal_says_it_in_a_screen():
    out = Console(file=io.StringIO(), width=100, highlight=False)
    told = (
        fake_run.typed(fake_run.run()),
        fake_run.typed_metrics(fake_run.metrics()),
    )
    run_terminal.print_run(*told, fake_run.typed_samples(fake_run.samples()), out)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    for line in (
        "done  llama, 5.2 million parameters", "validation loss  3.762 nats per token", "bits per byte    1.503",
        "speed            11,302 tokens per second, 41 % of the machine's peak", "  step 0         ",
        "  step 1,200     ␣jumped 19.0 %", "  Once upon a time",
    ):  # fmt: skip
        assert line in said, line
    assert len(said.splitlines()) < 25
