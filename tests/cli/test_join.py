"""`--shard I/N` and `riyaz join`: the whole has the bytes of a run without shards, and nothing else is joined."""

import json
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_run import Echo, run
from tiny_comparison import Told, command

from riyaz import predictor
from riyaz.cli import partial_answers, rows_out
from riyaz.cli import run as verb
from riyaz.cli.shards import read_shard, read_shards

ROWS = [
    {"id": n, "text": f"question {n} é\u2028", "score": float("nan"), "big": 2**70, "none": None} for n in range(22)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(partial_answers, "CHUNK", 4)
    write(ROWS)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    made = Echo()
    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: made)
    monkeypatch.setattr(verb, "answerer_of", lambda target, *rest: target)
    monkeypatch.setattr(verb, "target_hash", lambda target: target)
    return made


def write(rows: list[dict], path: str = "rows.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def shards(count: int, *more: object, out: str = "out.jsonl", **given: str) -> list[str]:
    """Answers all shards, the last one first; returns their files."""
    for number in reversed(range(1, count + 1)):
        assert run(out, *more, "--shard", f"{number}/{count}", **given).status == 0
    return [f"{out}.{number}-of-{count}" for number in range(1, count + 1)]


def join(*parts: object, out: str = "out.jsonl") -> Told:
    return command("join", *parts, "--out", out)


def same(one: str, other: str) -> bool:
    return Path(one).read_bytes() == Path(other).read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_joined_shards_are_the_bytes_of_the_whole(suffix: str, count: int, echo: Echo) -> None:
    whole = run(f"whole.{suffix}", "--prediction-column", "said")
    echo.asked = []
    files = shards(count, "--prediction-column", "said", out=f"out.{suffix}")
    assert len(echo.asked) == len(ROWS), "no row is answered twice, and some of nine shards have none"
    joined = join(*files[::-1], out=f"out.{suffix}")
    assert joined.status == 0 and same(f"out.{suffix}", f"whole.{suffix}")
    assert "22 rows answered in" in joined.err and ("note: " in whole.err) == ("note: " in joined.err)
    assert not [*Path().glob("*.partial"), *Path().glob(".*")]


def test_columns_of_citations_and_warnings_are_those_of_the_whole(echo: Echo) -> None:
    write([{"text": f"=question {n}"} for n in range(9)])
    real, cited = Echo.answers, []

    def seventh(conversations: Any, where: Any, **_: Any) -> Any:
        echo.cites = "rows.jsonl:7" in where
        cited.extend(where)
        return real(echo, conversations, where)

    echo.answers = seventh  # type: ignore[method-assign]
    whole = run("whole.csv")
    joined = join(*shards(2, out="out.csv"), out="out.csv")
    assert same("out.csv", "whole.csv") and Path("out.csv").read_text().startswith("text,prediction,citations\n")
    (note,) = [line for line in whole.err.splitlines() if line.startswith("note: 18 fields")]
    assert note in joined.err.splitlines()


def test_rows_may_be_as_deep_as_json_lets_them(echo: Echo) -> None:
    deep = json.dumps({"text": "a"}).replace('"a"', '"a", "deep": ' + "[" * 90 + "1.5e300" + "]" * 90)
    Path("rows.jsonl").write_text(f"{deep}\n" * 9)
    assert run("whole.jsonl").status == 0 and join(*shards(2)).status == 0 and same("out.jsonl", "whole.jsonl")


def test_a_real_model_answers_shards_as_the_whole(model_folder: Path) -> None:
    write([{"text": f"{'where is my order ' * (n % 5)}number {n}"} for n in range(22)])
    more = ("--max-new-tokens", 5)
    for suffix in "jsonl", "csv":
        assert run(f"whole.{suffix}", *more, target=str(model_folder)).status == 0
        files = shards(2, *more, out=f"out.{suffix}", target=str(model_folder))
        assert join(*files, out=f"out.{suffix}").status == 0 and same(f"out.{suffix}", f"whole.{suffix}")


def test_a_shard_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(echo: Echo) -> None:
    assert run("whole.csv").status == 0 and run("out.csv", "--shard", "2/2").status == 0
    first, draw = run("out.csv", "--shard", "1/2"), random.Random(3)
    assert first.status == 0
    before, partial = Path("out.csv.1-of-2").read_bytes(), Path("out.csv.1-of-2.partial")
    Path("out.csv.1-of-2").unlink()
    echo.asked, echo.stop_at = [], 8
    assert run("out.csv", "--shard", "1/2").status == 130
    content = partial.read_bytes()
    for cut in [0, len(content), *(draw.randrange(len(content)) for _ in range(10))]:
        partial.write_bytes(content[:cut])
        echo.asked, echo.stop_at = [], 4
        run("out.csv", "--shard", "1/2")  # a second stop, where anything is left to answer
        echo.stop_at = -1
        assert run("out.csv", "--shard", "1/2").status in (0, 2) and not partial.exists()
        assert Path("out.csv.1-of-2").read_bytes() == before
        Path("out.csv.1-of-2").unlink()
    Path("out.csv.1-of-2").write_bytes(before)
    assert join("out.csv.1-of-2", "out.csv.2-of-2", out="out.csv").status == 0 and same("out.csv", "whole.csv")


def test_shards_of_unlike_machines_are_joined_and_named(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["riyaz 9 with a", "riyaz 9 with b", "riyaz 9 with a", "riyaz 9 with a"])
    monkeypatch.setattr(verb, "computed_by", lambda: next(names))
    assert run("whole.jsonl").status == 0
    joined = join(*shards(4))
    assert joined.status == 0 and same("out.jsonl", "whole.jsonl")
    said = "riyaz 9 with a: shards 1 to 2 and 4; riyaz 9 with b: shard 3"
    assert (
        f"note: the shards were not all computed alike, so last digits may differ from those of one machine: {said}"
        in (joined.err)
    )


def test_a_shard_that_goes_on_on_another_machine_names_both(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop, name in (4, "one"), (8, "two"), (-1, "three"):
        monkeypatch.setattr(verb, "computed_by", lambda name=name: name)
        echo.asked, echo.stop_at = ["row"] * (stop - 4 if stop > 0 else 8), stop
        run("out.jsonl", "--shard", "1/1")
    (part,) = read_shards([Path("out.jsonl.1-of-1")])
    assert part.head.computed == ["one", "two", "three"]
    assert "one: shard 1; two: shard 1; three: shard 1" in join("out.jsonl.1-of-1").err


@pytest.mark.parametrize("text", ["0/4", "5/4", "x/4", "4", "1/0", "-1/4", "1/4/2", "", "1 / 4", "1/9999999"])
def test_a_shard_that_there_is_not_is_refused(text: str, echo: Echo) -> None:
    told = run("out.jsonl", f"--shard={text}")
    assert told.status == 2 and echo.asked == [] and not list(Path().glob("out*"))
    assert (
        told.line
        == f"error: --shard: {text!r} is no shard; give I/N with I from 1 to N, such as 2/4 for the second of four"
    )


def test_shards_are_whole_chunks_of_every_row() -> None:
    for rows in 0, 1, 63, 64, 65, 1000:
        for count in 1, 2, 3, 7, 40:
            spans = [read_shard(f"{number}/{count}").rows(rows, 64) for number in range(1, count + 1)]  # type: ignore[union-attr]
            assert [row for span in spans for row in span] == [*range(rows)]
            assert all(span.start % 64 == 0 or not span for span in spans)


def changed(path: str, **values: Any) -> Callable[[], None]:
    """Writes another head into a shard, with the right hash, as only a program would."""

    def change() -> None:
        from riyaz.cli.shards import ShardFile, _head, write_shard

        part = ShardFile(Path(path), _head(Path(path)))
        entries = [entry for _, entry in part.lines()]
        write_shard(Path(path), replace(part.head, **values), entries)

    return change


def edited(path: str, old: bytes, new: bytes) -> Callable[[], None]:
    def edit() -> None:
        content = Path(path).read_bytes()
        assert old in content
        Path(path).write_bytes(content.replace(old, new))

    return edit


def cut(path: str, size: int) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def of_other_rows() -> None:
    write([*ROWS[:-1], {**ROWS[-1], "id": 99}], "others.jsonl")
    Path("out.jsonl.2-of-3").unlink()
    assert run("out.jsonl", "--shard", "2/3", rows="others.jsonl").status == 0


def with_options(*more: object, **given: str) -> Callable[[], None]:
    def again() -> None:
        Path("out.jsonl.2-of-3").unlink()
        assert run("out.jsonl", *more, "--shard", "2/3", **given).status == 0

    return again


SECOND = "out.jsonl.2-of-3"
WRONG: list[tuple[Any, str]] = [
    (Path(SECOND).unlink, f"{SECOND}: cannot be read (No such file or directory)"),
    (cut(SECOND, 0), f"{SECOND}: is no shard that riyaz wrote"),
    (cut(SECOND, -3), "is cut short or damaged; make it again with the same command"),
    (cut(SECOND, -300), f"{SECOND}: is cut short or damaged"),
    (edited(SECOND, b"question 9", b"question 8"), f"{SECOND}: is cut short or damaged"),
    (edited(SECOND, b'"row": {', b'"row": 7, "was": {'), f"{SECOND}:2: "),
    (lambda: Path(SECOND).write_text("mine\n"), f"{SECOND}: is no shard that riyaz wrote"),
    (lambda: Path(SECOND).write_text('{"riyaz": "shard", "verb": 3}\n'), f"{SECOND}: "),
    (of_other_rows, f"{SECOND}: is a shard of another file (others.jsonl) than out.jsonl.1-of-3 (rows.jsonl)"),
    (with_options(target="other"), f"{SECOND}: has answers of another model (other) than out.jsonl.1-of-3 (echo)"),
    (
        with_options("--prediction-column", "said"),
        f"{SECOND}: was made with other options than out.jsonl.1-of-3: answer_columns, citation_column",
    ),
    (with_options("--prompt-column", "id"), f"{SECOND}: was made with other options than out.jsonl.1-of-3: reading"),
    (changed(SECOND, first=4, end=12), "out.jsonl.1-of-3: ends with row 8, and out.jsonl.2-of-3 begins with row 5"),
    (changed(SECOND, verb="walk"), "was made by riyaz walk, and out.jsonl.1-of-3 by riyaz run"),
    (changed(SECOND, count=4), "out.jsonl.2-of-3: is shard 2 of 4, and out.jsonl.1-of-3 is shard 1 of 3"),
    (changed(SECOND, number=1), "out.jsonl.1-of-3 and out.jsonl.2-of-3 are both shard 1 of 3; give each shard once"),
    (changed(SECOND, number=9), "says that it is shard 9 of 3"),
]


@pytest.mark.parametrize(("change", "what"), WRONG, ids=range(len(WRONG)))
def test_what_is_not_of_one_whole_is_refused_by_name(change: Callable[[], Any], what: str, echo: Echo) -> None:
    files = shards(3)
    change()
    told = join(*files)
    assert told.status == 2 and what in told.line and not Path("out.jsonl").exists() and not list(Path().glob(".*"))


def test_damaged_shards_are_refused_in_one_line(echo: Echo) -> None:
    files, draw = shards(2), random.Random(6)
    whole = [Path(name).read_bytes() for name in files]
    for _ in range(150):
        place = draw.randrange(2)
        content = bytearray(whole[place])
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(content))
            kind = draw.randrange(3)
            content[at : at + (kind > 0) * draw.randrange(1, 30)] = draw.choice([b"", b"9", b"[", b'"', b"\xff", b"\n"])
        Path(files[place]).write_bytes(content)
        told = join(*files)
        assert (told.status == 2 and told.line) or bytes(content) == whole[place], told.err
        Path("out.jsonl").unlink(missing_ok=True)
        Path(files[place]).write_bytes(whole[place])
    assert join(*files).status == 0


def test_missing_shards_and_names_that_cannot_be_written_are_refused(echo: Echo) -> None:
    files = shards(3)
    assert join(*files[::2]).line == "error: 2-of-3 is missing; give all shards of one whole"
    assert join(files[1]).line == "error: 1-of-3, 3-of-3 are missing; give all shards of one whole"
    assert join(files[0], *files).status == 0, "the same file twice is one shard"
    assert join(*files).line == "error: out.jsonl: exists already; pass --force to replace it, or choose another --out"
    told = join(*files, out="out.csv")
    assert told.line == "error: out.csv: the shards are those of a .jsonl file; end the name in .jsonl"
    assert "is the file that is read" in command("join", *files, "--out", files[0], "--force").line
    assert "no shard is named" in join().line
    assert "rows.jsonl: is no shard that riyaz wrote" in join("rows.jsonl", *files).line
    assert "out.jsonl.1-of-3: exists already" in run("out.jsonl", "--shard", "1/3").line
    assert "/dev/null: is a stream, and a shard is written to a file" in run("/dev/null", "--shard", "1/3").line


def test_what_computes_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from riyaz.engine import opening

    assert "riyaz 0" in rows_out.computed_by() and "C++ engine" in rows_out.computed_by()
    monkeypatch.setattr(opening, "engine_name", lambda: "torch")
    assert "with torch 2" in rows_out.computed_by()


def test_a_line_without_an_end_is_not_read_whole(echo: Echo) -> None:
    (name,) = shards(1)
    with open(name, "r+b") as file:
        file.truncate(len(file.readline()))
        file.truncate(2**28)  # NUL, which take no disk
    tracemalloc.start()
    assert "is cut short or damaged" in join(name).line
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
