"""`riyaz evaluate --out`, its shards and `riyaz join`: the scores are those of one run without a file."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_decide import TOPIC, URGENT, ask
from test_linear_classifier import classifier, written
from tiny_comparison import Told, closed_rows, command, free_rows, short_rows, write_rows

from riyaz import scoring, target_scores
from riyaz.cli import evaluate as verb
from riyaz.data import Example
from riyaz.predictor import Prediction, Reward

MEASURED = ("ms_per_answer", "peak_rss_mb")
THUMBS = [{"prompt": f"order {n}", "completion": f"card {n}", "label": n % 3 == 0} for n in range(10)]
ASKED = [{"text": f"my order {n}", "topic": ["refund", "billing"][n % 2], "urgent": n % 3 == 0} for n in range(10)]
GROUPED = [{**row, "customer": f"c{n // 3}"} for n, row in enumerate(closed_rows(14, "today"))]
CASES: dict[str, tuple[Sequence[dict], tuple[str, ...]]] = {
    "closed": (closed_rows(14, "today"), ()),
    "groups": (GROUPED, ("--group-column", "customer")),
    "short": (short_rows(9), ()),
    "free": (free_rows(9), ("--max-new-tokens", "4")),
    "nats": (free_rows(9), ("--metric", "nats", "--max-new-tokens", "2")),
    "thumbs": (THUMBS, ("--metric", "thumbs", "--max-new-tokens", "2")),
    "questions": (ASKED, ("--questions", "q.json")),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target_scores, "CHUNK", 4)
    monkeypatch.setattr(target_scores, "LATENCY_ROWS", 1)
    write_rows(Path("test.jsonl"), closed_rows(14, "today"))
    ask({**TOPIC, "column": "topic"}, {**URGENT, "column": "urgent"})


def evaluate(target: object, *more: object, test: str = "test.jsonl") -> Told:
    return command("evaluate", target, "--test", test, "--json", *more)


def join(*parts: object, out: str = "scores.json") -> Told:
    return command("join", *parts, "--out", out, "--json")


def steady(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in MEASURED}


@pytest.fixture
def made() -> Path:
    written(Path("made"), classifier())
    return Path("made/artifact")


@pytest.mark.parametrize("case", CASES)
def test_joined_scores_of_a_model_are_those_of_the_whole(case: str, model_folder: Path) -> None:
    rows, more = CASES[case]
    write_rows(Path("test.jsonl"), list(rows))
    whole = evaluate(model_folder, *more)
    assert whole.status == 0, whole.err
    for number in 2, 1:
        assert evaluate(model_folder, *more, "--out", "scores.json", "--shard", f"{number}/2").status == 0
    joined = join("scores.json.2-of-2", "scores.json.1-of-2")
    assert joined.status == 0, joined.err
    assert steady(joined.document) == steady(whole.document) and joined.document["n_test"] == len(rows)
    assert joined.document["ms_per_answer"] > 0 < joined.document["peak_rss_mb"]
    assert steady(json.loads(Path("scores.json").read_text())) == steady(whole.document)
    assert sorted(map(str, Path().glob("scores*"))) == ["scores.json", "scores.json.1-of-2", "scores.json.2-of-2"]


def test_joined_scores_of_an_artifact_have_its_calibration(made: Path) -> None:
    whole = evaluate(made)
    told = [evaluate(made, "--out", "scores.json", "--shard", f"{number}/5") for number in range(1, 6)]
    assert [each.status for each in told] == [0] * 5, "one has no rows"
    joined = join(*(f"scores.json.{number}-of-5" for number in range(1, 6)))
    assert steady(joined.document) == steady(whole.document) and whole.document["calibration"]["rows"] == 14
    assert evaluate(made, "--out", "one.json").status == 0
    assert steady(json.loads(Path("one.json").read_text())) == steady(whole.document)
    assert evaluate(made, "--out", "some.json", "--limit", 5).document["n_test"] == 5


@pytest.mark.parametrize("more", [(), ("--shard", "1/1")], ids=["whole", "shard"])
def test_what_is_stopped_at_any_moment_goes_on_to_the_same_scores(
    more: tuple[str, ...], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, arguments = "scores.json.1-of-1" if more else "scores.json", (made, "--out", "scores.json", *more)
    assert evaluate(*arguments).status == 0
    before, draw, real = Path(name).read_bytes(), random.Random(5), scoring.predict
    Path(name).unlink()
    answered: list[str] = []

    def stopping(predictor: Any, examples: Sequence[Example], *rest: Any, **named: Any) -> Any:
        if len(answered) >= 8:
            raise KeyboardInterrupt
        answered.extend(example.where for example in examples)
        return real(predictor, examples, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(target_scores, "predict", stopping)
        told = evaluate(*arguments)
    assert told.status == 130 and "the answers to 8 of 14 rows are kept in" in told.err
    content, about = (Path(f"{name}.partial{end}").read_bytes() for end in ("", ".json"))
    for cut in [0, len(content), *(draw.randrange(len(content)) for _ in range(10))]:
        Path(f"{name}.partial").write_bytes(content[:cut])
        Path(f"{name}.partial.json").write_bytes(about)
        assert evaluate(*arguments).status == 0 and not list(Path().glob("*.partial*"))
        first, second = before.splitlines(), Path(name).read_bytes().splitlines()
        if more:  # all lines but the head, which has times, and the hash
            assert first[1:-1] == second[1:-1]
        else:
            assert steady(json.loads(b"".join(first))) == steady(json.loads(b"".join(second)))
        Path(name).unlink()


def test_shards_of_other_rows_and_options_and_without_a_file_are_refused(made: Path) -> None:
    assert evaluate(made, "--shard", "1/2").line == (
        "error: --shard: a shard is written to a file; name the whole one, such as --out scores.json"
    )
    for shard in "0/4", "5/4":
        assert f"--shard: '{shard}' is no shard" in evaluate(made, "--out", "a.json", "--shard", shard).line
    assert "a.jsonl: the scores are written as JSON; end the name in .json" in evaluate(made, "--out", "a.jsonl").line
    for number in 1, 2:
        assert evaluate(made, "--out", "scores.json", "--shard", f"{number}/2").status == 0
    files = ["scores.json.1-of-2", "scores.json.2-of-2"]
    assert "scores.json.1-of-2: exists already" in evaluate(made, "--out", "scores.json", "--shard", "1/2").line
    assert join(*files, out="scores.csv").line.endswith("the shards are those of a .json file; end the name in .json")
    assert join(files[0]).line == "error: 2-of-2 is missing; give all shards of one whole"
    again = Path("again.1-of-2")
    again.write_bytes(Path(files[0]).read_bytes())
    assert join(*files, again).line == f"error: {files[0]} and {again} are both shard 1 of 2; give each shard once"
    force = ("--out", "scores.json", "--shard", "2/2", "--force")
    assert evaluate(made, *force, "--metric", "exact_match").status == 0
    assert "was made with other options than scores.json.1-of-2: reading, task" in join(*files).line
    write_rows(Path("other.jsonl"), closed_rows(14, "tomorrow"))
    assert evaluate(made, *force, test="other.jsonl").status == 0
    assert f"{files[1]}: is a shard of another file (other.jsonl)" in join(*files).line
    assert evaluate(made, *force).status == 0 and join(*files).status == 0
    head, first, *rest = Path(files[0]).read_text().splitlines()
    for wrong in {"answers": []}, {"score": None}, {"prediction": 3}:
        row = json.loads(first)
        Path(files[0]).write_text("\n".join([head, json.dumps({**row, "answer": row["answer"] | wrong}), *rest]) + "\n")
        told = join(*files, out="again.json")
        assert told.status == 2 and f"{files[0]}:2: " in told.line and not Path("again.json").exists()


def test_shards_under_a_schema_that_was_edited_between_them_are_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_scores, "keeping_to", lambda predictor, schema, where: predictor)
    for number, kind in (1, "string"), (2, "number"):
        Path("schema.json").write_text(json.dumps({"type": kind}))
        told = evaluate(made, "--out", "scores.json", "--shard", f"{number}/2", "--schema", "schema.json")
        assert told.status == 0, told.err
    told = join("scores.json.1-of-2", "scores.json.2-of-2")
    assert told.line.partition(": ")[2].startswith("scores.json.2-of-2: was made with other options") and (
        "schema" in told.line
    )


def test_shards_of_unlike_machines_are_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in (2, "riyaz 9 with b"), (1, "riyaz 9 with a"):
        monkeypatch.setattr(verb, "computed_by", lambda name=name: name)
        assert evaluate(made, "--out", "scores.json", "--shard", f"{number}/2").status == 0
    joined = join("scores.json.1-of-2", "scores.json.2-of-2")
    assert "computed alike" in joined.err and "riyaz 9 with a: shard 1; riyaz 9 with b: shard 2" in joined.err


def test_rows_that_change_while_they_are_scored_are_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, real = evaluate(made), scoring.predict

    def changing(predictor: Any, examples: Sequence[Example], *rest: Any, **named: Any) -> Any:
        write_rows(Path("test.jsonl"), closed_rows(14, "tomorrow"))
        return real(predictor, examples, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(target_scores, "predict", changing)
        told = evaluate(made, "--out", "scores.json")
    assert told.line == "error: test.jsonl: was changed while its rows were read; run the same command again"
    write_rows(Path("test.jsonl"), closed_rows(14, "today"))
    assert not Path("scores.json").exists() and steady(evaluate(made).document) == steady(whole.document)


def test_rewards_of_a_chunk_are_those_of_the_row_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Example(({"role": "user", "content": str(n)},), (str(n),)) for n in range(5)]

    def own(predictor: Any, some: Sequence[Example]) -> list[Reward]:
        pairs = zip(some, [*some[1:2], *some[:-1]])
        return [Reward(float(row.answer), float(before.answer)) for row, before in pairs]

    monkeypatch.setattr(scoring, "rewards", own)

    class Model:
        has_model = True

    class Task:
        metric = "thumbs"

    def made(part: Sequence[Example], before: Sequence[Example] = ()) -> list[Reward | None]:
        answers = [Prediction("x")] * len(part)
        return [each.reward for each in scoring.with_accepted(Model(), Task(), answers, part, before)]  # type: ignore[arg-type]

    assert made(rows) == made(rows[:2]) + made(rows[2:4], rows[1:2]) + made(rows[4:], rows[3:4])
