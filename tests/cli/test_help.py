"""`--help` of the verbs with many options shows the common ones, `--help all` every one."""

import re

import pytest
from tiny_comparison import command

from riyaz.cli.help import SHORT, rare

AT_MOST = 13  # options of a short help page
SOME = {"compare": "--methods", "adapt": "--epochs", "pretrain": "--size", "serve": "--port"}
OTHERS = {"compare": "--margin", "adapt": "--rank", "pretrain": "--dropout", "serve": "--drain"}


def options(*words: str) -> set[str]:
    told = command(*words)
    assert (told.status, told.err) == (0, ""), told.err
    return set(re.findall(r"^  (--[a-z-]+)", told.out, re.MULTILINE))


@pytest.mark.parametrize("verb", SHORT)
def test_the_short_help_shows_the_common_options_and_names_the_way_to_the_rest(verb: str) -> None:
    short, every = options(verb, "--help"), options(verb, "--help", "all")
    assert short < every and len(short) <= AT_MOST
    assert every - short == rare(verb) & every
    assert SOME[verb] in short and OTHERS[verb] in every - short
    assert f"riyaz {verb} --help all" in command(verb, "--help").out
    assert "--help all" not in command(verb, "--help", "all").out


@pytest.mark.parametrize("verb", ["", "chat", "rag", "rag ask"])
def test_all_changes_nothing_where_help_shows_every_option(verb: str) -> None:
    assert command(*verb.split(), "--help", "all").out == command(*verb.split(), "--help").out != ""


def test_only_a_comparison_offers_several_models() -> None:
    several = {"compare": "separated by commas, every method runs on each"}
    several["data"] = "of several, separated by commas, the first"
    for verb in ("compare", "adapt", "predict", "data"):
        page = " ".join(command(verb, "--help", "all").out.split("--model")[1].split("\n  --")[0].split())
        assert page.count("commas") == (verb in several) and several.get(verb, "") in page, page
    told = command("predict", "hello", "--model", "a,b")
    assert told.line.startswith("error: --model: riyaz predict takes one base, and these are 2: a and b;")


def test_a_verb_may_follow_help() -> None:
    assert command("--help", "compare").out == command("compare", "--help").out
    assert command("rag", "--help", "ask").out == command("rag", "ask", "--help").out


@pytest.mark.parametrize("words", [("compare", "--help", "everything"), ("compare", "rows.csv", "-h", "everything")])
def test_another_word_after_help_is_one_line(words: tuple[str, ...]) -> None:
    told = command(*words)
    hint = "write --help, or --help all for every option"
    assert (told.status, told.out) == (2, "")
    assert told.err == f"error: riyaz compare --help: unknown 'everything'; {hint}\n"
