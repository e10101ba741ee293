"""`riyaz decide --shard I/N` and `riyaz join`: the whole has the bytes and the counts of a run without shards."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from test_decide import MOOD, ROWS, TOPIC, URGENT, ask, decide, stopping, write
from test_linear_classifier import classifier, written
from tiny_comparison import Told, command

from riyaz.cli import decide as verb
from riyaz.data import streamed_file

MANY = [{**ROWS[n % 10], "id": n, "text": f"{ROWS[n % 10]['text']} = {n}", "note": "=1"} for n in range(23)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "TEXTS", 4)
    monkeypatch.setattr(verb, "PROMPTS", 6)
    written(tmp_path / "made", classifier())
    write(MANY)
    ask(TOPIC)


def shards(count: int, *more: object, out: str = "out.jsonl", **given: Any) -> list[str]:
    for number in reversed(range(1, count + 1)):
        assert decide(*more, "--shard", f"{number}/{count}", out=out, **given).status == 0
    return [f"{out}.{number}-of-{count}" for number in range(1, count + 1)]


def join(*parts: object, out: str = "out.jsonl") -> Told:
    return command("join", *parts, "--out", out, "--json")


def same(one: str, other: str) -> bool:
    return Path(one).read_bytes() == Path(other).read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
@pytest.mark.parametrize("count", [2, 8])
def test_joined_shards_are_the_bytes_and_the_counts_of_the_whole(suffix: str, count: int) -> None:
    more = ("--abstain-below", "0.6", "--prefix", "said_")
    whole = decide(*more, "--json", out=f"whole.{suffix}")
    joined = join(*shards(count, *more, out=f"out.{suffix}")[::-1], out=f"out.{suffix}")
    assert joined.status == 0 and same(f"out.{suffix}", f"whole.{suffix}")
    assert joined.document["questions"] == whole.document["questions"] and joined.document["rows"] == 23
    notes = [[line for line in each.err.splitlines() if line.startswith("note: ")] for each in (whole, joined)]
    assert notes[0] == notes[1] and bool(notes[0]) == (suffix != "jsonl")
    assert not [*Path().glob("*.partial*"), *Path().glob(".*")]


def test_a_model_answers_shards_as_the_whole_and_names_rows_that_are_too_long(tmp_path: Path) -> None:
    model = tiny_llama.write_hf_folder(tmp_path / "model", seed=3, context=128)
    ask(URGENT, MOOD, {**TOPIC, "choices": [{"value": "false"}, {"value": True}]})
    write([*MANY[:15], {"text": "the card " * 200}, *MANY[15:], {"text": "the order " * 300}])
    for suffix in "jsonl", "csv":
        more: dict[str, Any] = {"target": model, "out": f"out.{suffix}"}
        whole = decide("--questions", "q.json", "--json", **more | {"out": f"whole.{suffix}"})
        told = [decide("--questions", "q.json", "--shard", f"{number}/2", **more) for number in (1, 2)]
        assert [each.status for each in told] == [0, 2], "the second has both rows that are too long"
        joined = join(f"out.{suffix}.1-of-2", f"out.{suffix}.2-of-2", out=f"out.{suffix}")
        assert same(f"out.{suffix}", f"whole.{suffix}") and joined.status == whole.status == 2
        assert joined.line == whole.line.replace("whole.", "out.") and "rows.jsonl:16" in joined.line
        assert joined.document["questions"] == whole.document["questions"]


def test_a_shard_that_is_killed_at_any_moment_goes_on_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    (part,) = shards(1)
    before, draw = Path(part).read_bytes(), random.Random(4)
    stopping(monkeypatch, 16)
    Path(part).unlink()
    assert decide("--shard", "1/1").status == 130
    content, about = Path(f"{part}.partial").read_bytes(), Path(f"{part}.partial.json").read_bytes()
    assert json.loads(about)["computed"]
    for cut in [0, len(content), *(draw.randrange(len(content)) for _ in range(10))]:
        Path(f"{part}.partial").write_bytes(content[:cut])
        Path(f"{part}.partial.json").write_bytes(about)
        stopping(monkeypatch, 4)
        decide("--shard", "1/1")
        stopping(monkeypatch, -1)
        assert decide("--shard", "1/1").status in (0, 2) and Path(part).read_bytes() == before
        Path(part).unlink()
        assert not [*Path().glob("*.partial*")]


def test_shards_of_unlike_machines_and_gaps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in (2, "riyaz 9 with b"), (1, "riyaz 9 with a"):
        monkeypatch.setattr(verb, "computed_by", lambda name=name: name)
        assert decide("--shard", f"{number}/2").status == 0
    assert "riyaz 9 with a: shard 1; riyaz 9 with b: shard 2" in join("out.jsonl.1-of-2", "out.jsonl.2-of-2").err
    assert join("out.jsonl.2-of-2").line == "error: 1-of-2 is missing; give all shards of one whole"
    Path("again.2-of-2").write_bytes(Path("out.jsonl.2-of-2").read_bytes())
    told = join("out.jsonl.1-of-2", "again.2-of-2", "out.jsonl.2-of-2", out="again.jsonl")
    assert told.line == "error: again.2-of-2 and out.jsonl.2-of-2 are both shard 2 of 2; give each shard once"


def test_shards_of_other_rows_questions_and_thresholds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = shards(2)
    for change, what in (
        (lambda: write(MANY[1:]), f"{files[1]}: is a shard of another file"),
        (lambda: write(MANY), "was made with other options than out.jsonl.1-of-2: abstain_below"),
    ):
        change()
        Path(files[1]).unlink()
        assert decide("--shard", "2/2", "--abstain-below", "0.9").status == 0
        told = join(*files)
        assert told.status == 2 and what in told.line and not Path("out.jsonl").exists()
    Path(files[1]).unlink()
    assert decide("--shard", "2/2", "--prompt-column", "id").status == 0
    assert "was made with other options than out.jsonl.1-of-2: reading" in join(*files).line
    for shard in "0/4", "5/4":
        assert decide("--shard", shard).line.startswith(f"error: --shard: '{shard}' is no shard")
    head, *rows, end = Path(files[1]).read_text().splitlines()
    record = json.loads(rows[0])
    for wrong in {}, {"where": 1}, {"answers": 3}, {"answers": {"label": {"type": "choice"}}}, {"error": []}:
        broken = {**record, "record": {**record["record"], **wrong} if wrong else 1}
        Path(files[0]).write_text("\n".join([head, json.dumps(broken), *rows[1:], end]) + "\n")
        told = join(files[0], out="other.jsonl")
        assert told.status == 2 and "Traceback" not in told.err and not Path("other.jsonl").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_file, "CHUNK", 2**14)
    monkeypatch.setattr(verb, "TEXTS", 256)
    peaks = {}
    for count in 50, 1_200, 2_700:
        write([{"text": f"my card {n}", "n": n} for n in range(count)])
        tracemalloc.start()
        assert decide("--quiet", "--shard", "1/1", out=f"{count}.csv").status == 0
        assert join(f"{count}.csv.1-of-1", out=f"{count}.csv").status == 0
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    each = (peaks[2_700] - peaks[1_200]) / 1_500
    assert each < 100, f"{each:.0f} bytes a row"
