"""Learning rates by hand for some methods: how they are written, what is refused, and what each method trains at."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from refusals import assert_refused
from tiny_comparison import command

import riyaz
from riyaz import methods as table
from riyaz.comparison.by_hand import by_hand, by_hand_notes
from riyaz.config import CompareConfig, read_toml, resolve
from riyaz.library.options import called, resolve_options
from riyaz.methods.fitting.recipe import ByHand

pytestmark = pytest.mark.usefixtures("one_core")
TWO = {"lora": 1e-3, "full": 5e-5}


# how they are written


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ("1e-3", 1e-3),
        (1e-3, 1e-3),
        ("lora=1e-3,full=5e-5", TWO),
        (" lora = 1e-3 , full=5e-5", TWO),
        (TWO, TWO),
        ("rag_lora=0.5", {"rag_lora": 0.5}),
    ],
)
def test_a_number_a_text_and_a_mapping_say_the_same(given: Any, rates: object) -> None:
    assert CompareConfig(learning_rate=given).learning_rate == rates
    assert resolve_options(Path("rows.jsonl"), {"learning_rate": given})[1].learning_rate == rates


@pytest.mark.parametrize(
    "line",
    [
        'learning_rate = "lora=1e-3,full=5e-5"',
        "learning_rate = {lora = 1e-3, full = 5e-5}",
        "learning_rate.lora = 1e-3\nlearning_rate.full = 5e-5",
        "[learning_rate]\nlora = 1e-3\nfull = 5e-5",
    ],
)
def test_a_data_folder_gives_them_as_text_or_as_a_table(line: str, tmp_path: Path) -> None:
    path = tmp_path / "riyaz.toml"
    path.write_text(line + "\n")
    assert resolve(read_toml(path), {})[1].learning_rate == TWO
    assert resolve(read_toml(path), {"learning_rate": "lora=2e-3"})[1].learning_rate == {"lora": 2e-3}
    path.write_text(line.replace("5e-5", "5e5"))
    with assert_refused(f"{path}: learning_rate: 'full': 500000.0 is too large; give less than 1"):
        read_toml(path)


@pytest.mark.parametrize(
    ("rates", "line"),
    [
        ("lora=", "--learning-rate: 'lora=' is not METHOD=RATE; write one for all methods, such as 1e-3, or one"),
        ("=1e-3", "--learning-rate: '=1e-3' is not METHOD=RATE"),
        ("lora=1e-3,", "--learning-rate: '' is not METHOD=RATE"),
        ("lora=1e-3,5e-5", "--learning-rate: '5e-5' is not METHOD=RATE"),
        ("lora=high", "--learning-rate: 'lora=high' is not METHOD=RATE"),
        ("lora=1e-3,full=2e-5,lora=2e-3", "--learning-rate: names 'lora' twice; give one rate for each method"),
        ("high", "--learning-rate: 'high' is not a number; write one for all methods"),
        ("", "--learning-rate: '' is not a number"),
        ("2", "--learning-rate: 2.0 is too large; give less than 1"),
        ("lora=1e-3,full=1", "--learning-rate: 'full': 1.0 is too large; give less than 1"),
        ("lora=0", "--learning-rate: 'lora': 0.0 is too small; give more than 0"),
        ("lora=-1e-3", "--learning-rate: 'lora': -0.001 is too small; give more than 0"),
        ("lora=nan", "--learning-rate: 'lora': nan is not a finite number"),
        ({}, "--learning-rate: names no method"),
        ({"lora": "1e-3"}, "--learning-rate: 'lora': '1e-3' is not a number"),
        ({"lora": None}, "--learning-rate: 'lora': None is not a number"),
        ({"lora": True}, "--learning-rate: 'lora': True is not a number"),
        ([1e-3], "--learning-rate: [0.001] is not a number"),
    ],
)
def test_what_gives_no_rates_is_refused(rates: Any, line: str) -> None:
    with assert_refused(line):
        CompareConfig(learning_rate=rates)


# which methods they are for


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("lorra", "--learning-rate: unknown method 'lorra'; choose from prompt_tuning, lora, full, rag_lora"),
        ("prompt_tuning", "--learning-rate: prompt_tuning is not among the methods that run: rag, lora, full; leave"),
        *((name, f"--learning-rate: {name} trains nothing; leave it out, or choose from prompt_tuning, lora, full")
          for name in ("nearest", "zero_shot", "few_shot", "rag")),
    ],
)  # fmt: skip
def test_a_method_that_cannot_take_one_is_refused(name: str, line: str) -> None:
    config = CompareConfig(learning_rate={"lora": 1e-3, name: 1e-3})
    with assert_refused(line):
        by_hand_notes(config, ("rag", "lora", "full"))


def test_one_in_the_data_folder_for_a_method_that_does_not_run_is_said() -> None:
    def notes(rates: dict[str, float], *methods: str) -> list[str]:
        return by_hand_notes(CompareConfig(learning_rate=rates), methods, {"learning_rate": TWO}, "d/riyaz.toml")

    unused = "d/riyaz.toml: learning_rate of full has no effect, as full is not among the methods that run: lora"
    assert notes(TWO, "lora") == [unused, "lora by hand: learning rate 0.001; no learning rate is searched"]
    assert len(notes(TWO, "nearest")) == 2
    with assert_refused("--learning-rate: full is not among the methods that run: lora; leave it out, or run full too"):
        notes({"full": 5e-5}, "lora")
    for name, what in (("lorra", "unknown method 'lorra'"), ("rag", "rag trains nothing")):
        with assert_refused(f"d/riyaz.toml: learning_rate: {what}"):
            wrong = {name: 1e-3}
            by_hand_notes(CompareConfig(learning_rate=wrong), ("lora",), {"learning_rate": wrong}, "d/riyaz.toml")


def test_each_method_has_its_own_and_one_that_takes_another_s_takes_that() -> None:
    def rate(method: str, *methods: str, **rates: float) -> float | None:
        return by_hand(method, CompareConfig(learning_rate=rates), methods).learning_rate

    assert (rate("lora", "lora", "full", **TWO), rate("full", "lora", "full", **TWO)) == (1e-3, 5e-5)
    assert rate("prompt_tuning", "prompt_tuning", "lora", lora=1e-3) is None
    assert rate("rag_lora", "lora", "rag_lora", lora=1e-3) == 1e-3
    assert rate("rag_lora", "lora", "rag_lora", lora=1e-3, rag_lora=2e-3) == 2e-3
    assert rate("rag_lora", "full", "rag_lora", lora=1e-3) is None, "lora does not run"
    assert rate("lora", "lora", "rag_lora", rag_lora=2e-3) is None
    assert by_hand("full", CompareConfig(learning_rate=3e-3, rank=4), ("full",)) == ByHand(learning_rate=3e-3, rank=4)


def test_the_methods_that_are_changed_are_said() -> None:
    config = CompareConfig(learning_rate=TWO, steps=9)
    assert by_hand_notes(config, ("prompt_tuning", "lora", "full")) == [
        "prompt_tuning by hand: steps 9",
        "lora by hand: steps 9, learning rate 0.001; no learning rate is searched",
        "full by hand: steps 9, learning rate 5e-05; no learning rate is searched",
    ]


def test_the_library_names_the_option_and_writes_the_call_again() -> None:
    with assert_refused("learning_rate: 'lora=' is not METHOD=RATE"):
        riyaz.compare([{"prompt": "a", "answer": "b"}], learning_rate="lora=", quiet=True)
    assert called("adapt", "lora", "d", learning_rate=TWO).endswith("learning_rate={'lora': 0.001, 'full': 5e-05})")


# a whole run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    return tmp_path / "data"


def rates_of(told: tiny_comparison.Told) -> dict[str, tuple[float, int]]:
    """The learning rate of every trained arm, and how many were tried."""
    assert told.status == 0, told.err
    arms = {arm["method"]: arm["chosen"] for arm in told.document["arms"] if "learning_rate" in arm["chosen"]}
    return {method: (chosen["learning_rate"], len(chosen["search"])) for method, chosen in arms.items()}


def test_two_methods_train_at_their_own_rates_and_the_third_searches(
    inside: list, asked: tuple, rows: Path, tmp_path: Path
) -> None:
    command_line = ("compare", rows, *asked, "--methods", "nearest,prompt_tuning,lora,full", "--margin", "0",
                    "--learning-rate", "lora=3e-3,full=2e-4", "--out", tmp_path / "out")  # fmt: skip
    dry = command(*command_line, "--dry-run")
    planned = {arm["method"]: arm["learning_rates"] for arm in dry.document["plan"]["arms"]}
    both = list(table.METHODS["prompt_tuning"].recipe.learning_rates)  # type: ignore[union-attr]
    assert (planned["lora"], planned["full"], planned["prompt_tuning"]) == ([3e-3], [2e-4], both)
    told = command(*command_line)
    found = rates_of(told)
    assert (found["lora"], found["full"]) == ((3e-3, 0), (2e-4, 0))
    assert found["prompt_tuning"][0] in both and found["prompt_tuning"][1] == 2
    searched = {line.split(":")[0] for line in told.err.splitlines() if ": search" in line}
    assert searched == {"prompt_tuning"}, told.err


def test_a_rate_of_rag_lora_is_not_replaced_by_that_of_lora(inside: list, asked: tuple, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.page_rows("please", "now"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.page_rows("today"))
    tiny_comparison.write_pages(tmp_path / "pages")
    retrieving = ("compare", tmp_path / "data", *asked, "--documents", tmp_path / "pages", "--methods", "lora,rag_lora",
                  "--steps", "3", "--margin", "0")  # fmt: skip
    told = command(*retrieving, "--learning-rate", "rag_lora=2e-3", "--out", tmp_path / "one")
    found = rates_of(told)
    assert found["rag_lora"] == (2e-3, 0) and found["lora"][0] != 2e-3
    told = command(*retrieving, "--learning-rate", "lora=3e-3", "--out", tmp_path / "other")
    assert rates_of(told) == {"lora": (3e-3, 0), "rag_lora": (3e-3, 0)}


def test_a_comparison_with_one_rate_goes_on(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command_line = ("compare", rows, *asked, "--methods", "lora", "--steps", "3", "--out", out)
    first = command(*command_line, "--learning-rate", "0.002")
    assert rates_of(first) == {"lora": (0.002, 0)}
    assert json.loads((out / "settings.json").read_text())["settings"]["learning_rate"] == 0.002
    (out / "compare.json").unlink()
    (out / "arms/lora/kept/result.json").unlink()
    inside.clear()
    again = command(*command_line, "--learning-rate", "2e-3")
    assert rates_of(again) == {"lora": (0.002, 0)} and {work for work, *_ in inside} == {"evaluate"}
    other = command(*command_line, "--learning-rate", "lora=0.002")
    assert other.status == 2 and "this folder holds another comparison (other learning rate)" in other.line


def test_a_comparison_with_rates_by_method_goes_on(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command_line = ("compare", rows, *asked, "--methods", "lora", "--steps", "3", "--out", out)
    assert rates_of(command(*command_line, "--learning-rate", "lora=0.002")) == {"lora": (0.002, 0)}
    (out / "compare.json").unlink()
    inside.clear()
    (rows / "riyaz.toml").write_text("[learning_rate]\nlora = 2e-3\n")
    again = command(*command_line)
    assert rates_of(again) == {"lora": (0.002, 0)} and not inside, "the table says the same as the text"
    other = command(*command_line, "--learning-rate", "lora=0.003")
    assert other.status == 2 and "(other learning rate)" in other.line


def test_adapt_refuses_a_rate_of_another_method(inside: list, asked: tuple, rows: Path, tmp_path: Path) -> None:
    told = command("adapt", "lora", rows, *asked, "--learning-rate", "full=1e-4", "--out", tmp_path / "mine")
    assert told.status == 2
    assert told.line.startswith("error: --learning-rate: full is not among the methods that run: lora; leave it out")
    assert not (tmp_path / "mine").exists()
