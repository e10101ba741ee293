"""Everything that is wrong with a file is said at once, and the command that the line ends in works."""

import json
import shlex
from pathlib import Path

import pytest
from tiny_comparison import command

TEXTS = [f"Wo ist meine grüne Bestellung {n} aus {place}?" for n in range(10) for place in ("Köln", "Bonn", "Ulm")]


@pytest.fixture(autouse=True)
def no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))


def wrong_file(path: Path) -> Path:
    """Not UTF-8, with columns that nobody knows and a row without an answer."""
    rows = [f"{text};{'abc'[n % 3]};etwas anderes {n}" for n, text in enumerate(TEXTS)]
    path.write_text("\n".join(["was;wohin;notiz", *rows, "Wo?;;nichts"]) + "\n", encoding="latin-1")
    return path


def test_three_problems_are_one_line_whose_command_works(tmp_path: Path) -> None:
    said = command("data", wrong_file(tmp_path / "rows.csv"), "--rows", 1)
    assert said.status == 2 and said.out == "" and said.err.count("\n") == 1
    assert "3 things are wrong: (1)" in said.err and "is not UTF-8" in said.err
    assert "(2)" in said.err and "among was, wohin, notiz" in said.err
    assert "(3)" in said.err and "rows.csv:32: the row has no 'wohin'" in said.err
    written = shlex.split(said.err[said.err.index("; run riyaz ") + len("; run riyaz ") :])
    assert written[:2] == ["data", str(tmp_path / "rows.csv")]
    assert command(*written).status == 0


def test_one_problem_keeps_its_hint_and_adds_the_command(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": "abc"[n % 3] if n else ""} for n, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = command("data", path)
    assert said.err.endswith(f"without a prompt or an answer: riyaz data {path} --skip-incomplete\n")


def test_a_comparison_says_the_same_and_leaves_nothing(tmp_path: Path, model_folder: Path) -> None:
    path, out = wrong_file(tmp_path / "rows.csv"), tmp_path / "out"
    flags = ("--model", model_folder, "--methods", "nearest,zero_shot", "--budget", "60s", "--out", out)
    said = command("compare", path, *flags)
    assert said.status == 2 and "3 things are wrong" in said.err and not out.exists()
    assert said.err.strip().endswith("--skip-incomplete") and "--methods nearest,zero_shot --" in said.err, said.err


def test_what_no_option_mends_ends_the_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(f"Straße {n};gleich\n" for n in range(30))
    path.write_text("text;label\n" + rows, encoding="latin-1")
    said = command("data", path)
    assert "2 things are wrong" in said.err and "all 30 rows have the same answer 'gleich'" in said.err
    assert "add rows with other answers" in said.err and "then run riyaz data" in said.err


@pytest.mark.parametrize("verb", ["data", "compare"])
@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("t", "a")] * 30, "all 30 rows have the same answer 'a'"),
        ([(f"t {n}", "a") for n in range(30)], "all 30 rows have the same answer 'a'"),
        ([("", "ab"[n % 2]) for n in range(30)], "the row has no 'text' (and 29 more"),
        ([(f"t {n}", "ab"[n % 2]) for n in range(9)], "9 rows: too few to learn from and to test"),
    ],
    ids=["one row", "one label", "empty texts", "few rows"],
)
def test_rows_that_cannot_be_learned_are_one_line(
    tmp_path: Path, model_folder: Path, verb: str, rows: list[tuple[str, str]], what: str
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    flags = () if verb == "data" else ("--model", model_folder, "--methods", "nearest,zero_shot", "--out", out)
    said = command(verb, path, *flags)
    last = said.err.splitlines()[-1]
    assert said.status == 2 and last.startswith("error: ") and what in last and not out.exists(), said.err


def test_a_label_in_the_test_alone_is_named_and_three_rows_a_label_are_read(tmp_path: Path) -> None:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps({"text": t, "label": f"l{n // 3}"}) + "\n" for n, t in enumerate(TEXTS)))
    test.write_text("".join(json.dumps({"text": f"{n}", "label": f"l{n}"}) + "\n" for n in range(9, 12)))
    said = command("data", train, "--test", test)
    assert said.status == 0, said.err
    assert "2 test rows have a label that no training row has" in said.out
    assert f"{test}:2  'l10'" in said.out and f"{test}:3  'l11'" in said.out
