"""JSON of ours that was edited, cut short or is another's: read, or refused in one line with file and place."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from conftest import RETRIEVED, Finished
from grids import examples
from rich.console import Console
from tiny_pretraining import SMALL, quick_machine, texts

from riyaz.artifact import resolve
from riyaz.comparison.arm_row import arm_row, row_scores
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.pick import choose
from riyaz.comparison.plan import ComparisonPlan, TooShort, make_plan
from riyaz.comparison.run import _spent
from riyaz.comparison.speeds import Speeds
from riyaz.errors import RiyazError
from riyaz.methods import METHODS
from riyaz.methods.fitting.learning_rate import Search
from riyaz.pretraining.folder import RunFolder
from riyaz.pretraining.run import described, read_run
from riyaz.report.comparison import examples as browsed
from riyaz.report.comparison import first_fold, html, labels, markdown, terminal
from riyaz.report.pretraining import terminal as run_terminal
from riyaz.report.pretraining import words as run_words
from riyaz.report.write import answers
from riyaz.results import Answer, Comparison

pytestmark = pytest.mark.grid
MUTATIONS = examples(300)  # of every file
NESTED: Any = "deep"
for _ in range(300):
    NESTED = [NESTED]
VALUES = (
    None, True, False, 0, -1, 7, 1.5, 1e300, 10**400, float("nan"), float("-inf"), "", "text", "1", "\ud800", "../..",
    [], {}, [1], [[]], [None], {"a": 1}, {"ok": "yes"}, {"ok": True}, NESTED,
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in pairs] + [place for _, item in pairs for place in places(item)]


def edited(dice: random.Random, text: str) -> str:
    """The JSON text with one value removed, replaced, moved or under another name."""
    value = json.loads(text)
    spots = places(value)
    if not spots or dice.random() < 0.03:
        return json.dumps(dice.choice(VALUES))
    container, key = dice.choice(spots)
    way = dice.randrange(5)
    if way == 0:
        del container[key]
    elif way == 1:
        other, from_key = dice.choice(spots)
        container[key] = json.loads(json.dumps(other[from_key]))
    elif way == 2 and isinstance(container, dict):
        container[f"{key}s"] = container.pop(key)
    else:
        container[key] = dice.choice(VALUES)
    return json.dumps(value)


def mutated(dice: random.Random, content: bytes, others: list[bytes], lines: bool) -> bytes:
    """The content of a file after a hand, a full disk or another program has been at it."""
    way = dice.randrange(10)
    if way == 0:
        return content[: dice.randrange(len(content))]
    if way == 1:
        at = dice.randrange(len(content))
        return content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :]
    if way == 2:
        return dice.choice([b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf" + content, *others])
    if not lines:
        return edited(dice, content.decode()).encode("utf-8", "surrogatepass")
    rows = content.decode().splitlines(keepends=True)
    at = dice.randrange(len(rows))
    changed = {3: "", 4: rows[at] * 2, 5: "\n"}.get(way) if way < 6 else edited(dice, rows[at].strip()) + "\n"
    return "".join([*rows[:at], changed or "", *rows[at + 1 :]]).encode("utf-8", "surrogatepass")


def check(path: Path, work: Callable[[], object], others: list[Path]) -> None:
    """The work with every mutation of the file ends, or is refused in one line that names it."""
    whole, dice, refused = path.read_bytes(), random.Random(path.name), 0
    foreign = [other.read_bytes() for other in others]
    work()
    try:
        for number in range(MUTATIONS):
            content = mutated(dice, whole, foreign, path.suffix == ".jsonl")
            path.write_bytes(content)
            try:
                work()
            except RiyazError as error:
                refused += 1
                line = str(error)
                assert line.isprintable() and path.name in line and len(line) < 500, (number, line)
            except Exception as error:
                raise AssertionError(f"mutation {number} of {path.name}: {error!r}\n{content[:2000]!r}") from error
    finally:
        path.write_bytes(whole)
    assert MUTATIONS / 6 < refused < MUTATIONS, refused


@pytest.fixture(scope="module")
def out(retrieved: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of our own."""
    folder = tmp_path_factory.mktemp("damaged") / "out"
    shutil.copytree(retrieved.out, folder)
    return folder


def shown(folder: Path) -> None:
    """The three reports, but for the pictures."""
    comparison = Comparison.read(folder / "compare.json")
    resolve(folder)
    markdown.render(comparison)
    terminal.print_comparison(comparison, Console(quiet=True))
    given = answers(folder, comparison)
    first_fold.head(comparison)
    html._arms(comparison, comparison.ranked)
    labels.section(comparison, given)
    browsed.section(comparison, browsed.browser_data(comparison, given))


def settled(folder: ComparisonFolder, identity: dict[str, Any]) -> None:
    folder.claim(identity)
    folder.settings()


def judged(folder: ComparisonFolder) -> None:
    """From the files of parts to rows and the pick."""
    plan = ComparisonPlan.read(folder.path / "plan.json")
    methods = [path.name for path in sorted((folder.path / "arms").iterdir())]
    rows = [arm_row(folder, plan.arm(method), [FINAL], "") for method in methods]
    choose(rows, row_scores(folder, rows, [FINAL]))
    for row in rows:
        terminal.print_arm(row, Console(quiet=True))
        markdown._arm(row)


def test_a_damaged_comparison_is_shown_or_refused(out: Path) -> None:
    check(out / "compare.json", lambda: shown(out), [out / "plan.json", out / "settings.json"])


def test_damaged_settings_are_recognised_or_refused(out: Path) -> None:
    folder = ComparisonFolder(out)
    identity = folder.read("settings.json")

    def work() -> None:
        try:
            settled(folder, identity)
        except RiyazError as error:
            if "holds another comparison" not in error.what:
                raise
            raise RiyazError(error.what, f"{error.where}/settings.json") from error

    check(out / "settings.json", work, [out / "plan.json", out / "compare.json"])


def test_a_damaged_plan_is_taken_or_refused(out: Path) -> None:
    check(out / "plan.json", lambda: judged(ComparisonFolder(out)), [out / "settings.json", out / "compare.json"])


@pytest.mark.parametrize("name", ["result.json", "fit.json", "predictions.jsonl"])
def test_a_damaged_part_is_judged_or_refused(out: Path, name: str) -> None:
    path = out / "arms/rag_lora" / FINAL / name
    check(path, lambda: judged(ComparisonFolder(out)), [out / "compare.json", path.with_name("log.txt")][:1])


def test_damaged_speeds_are_planned_by_or_refused(out: Path) -> None:
    path, recipes = out / "measured.json", {method: METHODS[method].recipe for method in RETRIEVED}
    trained = [method for method, recipe in recipes.items() if recipe is not None]

    def work() -> None:
        speeds = Speeds.read(path, recipes, trained)
        with contextlib.suppress(TooShort):
            make_plan(PlanInputs(recipes, speeds, Sizes(20, 8, 13), seed=4), budget=10800.0, spent=0.0)

    check(path, work, [out / "plan.json"])


def test_a_damaged_search_is_taken_or_refused(out: Path) -> None:
    path = out / "arms/lora" / FINAL / "search.json"
    check(path, lambda: Search.read(path), [out / "plan.json"])


@pytest.mark.parametrize("seconds", ["true", "-1", "1e999", "1" + "0" * 400, '"1"', "[1]"])
def test_damaged_seconds_are_refused(tmp_path: Path, seconds: str) -> None:
    (tmp_path / "seconds.json").write_text(seconds)
    with pytest.raises(RiyazError, match="is not a number of seconds"):
        _spent(ComparisonFolder(tmp_path))


@pytest.mark.parametrize("score", ["-0.5", "2", "1e300"])
def test_scores_of_answers_lie_between_0_and_1(tmp_path: Path, score: str) -> None:
    row = f'{{"where": "a:1", "prompt": "p", "answers": ["a"], "prediction": "b", "score": {score}}}\n'
    (tmp_path / "predictions.jsonl").write_text(row)
    with pytest.raises(RiyazError, match=r"predictions\.jsonl:1: score is"):
        Answer.read(tmp_path / "predictions.jsonl")


def test_damaged_answers_are_shown_or_refused(out: Path) -> None:
    check(out / "arms/lora" / FINAL / "predictions.jsonl", lambda: shown(out), [out / "compare.json"])


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pretraining run of our own."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "texts").mkdir()
    with tiny_comparison.small_machine(home) as patch:
        quick_machine(patch)
        told = tiny_comparison.command("pretrain", texts(folder / "texts"), *SMALL, "--out", folder / "out")
    assert told.status == 0, told.err
    return folder / "out"


def begun(folder: Path) -> None:
    """What a resumed run takes from its files, and what the report says of them."""
    known, frozen = read_run(RunFolder(folder))
    if known is not None and frozen is not None:
        described(known, frozen)
    told = run_words.read_run(folder)
    run_terminal.print_run(*told, Console(quiet=True))
    assert run_words.keep_in_mind(*told[:2]) and run_words.again(told[0])


@pytest.mark.parametrize("name", ["run.json", "plan.json", "metrics.jsonl", "samples.jsonl"])
def test_a_damaged_run_goes_on_or_is_refused(run: Path, name: str) -> None:
    check(run / name, lambda: begun(run), [run / "config.json", run / "run.json"])


def test_a_newer_schema_is_said(out: Path, tmp_path: Path) -> None:
    from riyaz.json_files import write_json

    whole = Comparison.read(out / "compare.json")
    write_json(tmp_path / "compare.json", replace(whole, schema=2))  # type: ignore[arg-type]
    with pytest.raises(RiyazError, match="made by a newer riyaz"):
        Comparison.read(tmp_path / "compare.json")
    old = json.loads((out / "compare.json").read_text())
    assert old.pop("schema") == 1
    (tmp_path / "compare.json").write_text(json.dumps(old))
    assert Comparison.read(tmp_path / "compare.json") == whole, "a file of before the schema"
