"""A comparison whose answers keep to a schema: every generated one parses, copies run beside them, and each artifact
holds the schema."""

import json
from pathlib import Path

import pytest
from tiny_comparison import command

from riyaz.artifact import Artifact
from riyaz.engine import grammar
from riyaz.engine.grammar import misfit

pytestmark = pytest.mark.usefixtures("one_core", "inside")
FIELDS = {"order": {"type": "integer", "maximum": 9999}, "day": {"enum": ["Monday", "Tuesday"]}}
SCHEMA = {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False}


def write(folder: Path, count: int, wrong: int = 0) -> tuple[Path, Path]:
    """Rows with answers under SCHEMA, `wrong` of them with the fields in another order, and the schema's file."""
    rows = folder / "rows.jsonl"
    with open(rows, "w") as file:
        for place in range(count):
            answer = {"order": place, "day": ("Monday", "Tuesday")[place % 2]}
            answer = dict(reversed(answer.items())) if place < wrong else answer
            file.write(json.dumps({"question": f"where is order {place}", "answer": json.dumps(answer)}) + "\n")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    return rows, folder / "schema.json"


def test_every_generated_answer_parses_and_copies_run_beside(tmp_path: Path, model_folder: Path) -> None:
    rows, schema = write(tmp_path, 60, wrong=1)
    out = tmp_path / "out"
    told = command(
        "compare", rows, "--model", model_folder, "--schema", schema, "--methods", "nearest,zero_shot,few_shot",
        "--budget", "3h", "--out", out, "--limit-test", 12, "--json",
    )  # fmt: skip
    assert told.status == 0, told.err
    assert "1 of 60 training answers do not keep to the schema" in told.err
    assert "rows.jsonl:1: the schema has" in told.err
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert {arm["status"] for arm in arms.values()} == {"ok"}
    for method in arms:
        artifact = Artifact.read(out / "arms" / method / "kept" / "artifact")
        assert artifact.task is not None and json.loads(artifact.task.schema)["properties"] == FIELDS
        files = (out / "arms" / method).glob("*/predictions.jsonl")
        lines = [line for file in files for line in file.read_text().splitlines()]
        texts = [json.loads(line)["prediction"] for line in lines]
        if method != "nearest":
            assert texts and all(misfit(artifact.task.schema, text, "schema") == "" for text in texts), method
    again = command("compare", rows, "--model", model_folder, "--methods", "nearest,zero_shot,few_shot", "--budget",
                    "3h", "--out", out, "--limit-test", 12)  # fmt: skip
    assert "this folder holds another comparison" in again.line


def test_what_a_schema_is_not_for_is_one_line(tmp_path: Path, model_folder: Path) -> None:
    rows, schema = write(tmp_path, 40, wrong=40)
    out = ("--out", tmp_path / "out", "--model", model_folder, "--budget", "3h")
    said = command("compare", rows, "--schema", schema, *out).line
    assert "rows.jsonl:1: the schema allows none of the 40 training answers" in said and "another order" in said
    said = command("adapt", "nearest", rows, "--schema", schema, *out).line
    assert "--schema: nearest copies its answers" in said
    schema.write_text('{"type": "thing"}')
    assert "the schema cannot be followed" in command("compare", rows, "--schema", schema, *out).line
    assert not (tmp_path / "out").exists()


def test_data_shows_which_answers_do_not_keep_to_it(tmp_path: Path) -> None:
    rows, schema = write(tmp_path, 40, wrong=2)
    told = command("data", rows, "--schema", schema, "--skip-problems")
    assert told.status == 0 and "which 38 of 40 answers keep to" in told.out
    assert "rows.jsonl:2: the schema has" in told.out
    document = command("data", rows, "--schema", schema, "--skip-problems", "--json").document
    assert [each["where"].rpartition(":")[2] for each in document["schema"]["misfits"]] == ["1", "2"]


def test_evaluate_takes_one_for_a_model_and_for_rows_of_conversations(tmp_path: Path, model_folder: Path) -> None:
    _, schema = write(tmp_path, 1)
    rows = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": '{"order": 0, "day": "Monday"}'}]
    with open(rows, "w") as file:
        for place in range(20):
            answer = json.dumps({"order": place, "day": "Monday"})
            asked = [*turns, {"role": "user", "content": f"order {place}"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": asked}) + "\n")
    told = command("evaluate", model_folder, "--test", rows, "--schema", schema, "--metric", "json_f1", "--json")
    assert told.status == 0, told.err
    assert told.document["extras"]["parses"] == 1.0, told.document["extras"]
    without = command("evaluate", model_folder, "--test", rows, "--metric", "json_f1", "--json").document
    assert without["extras"]["parses"] == 0.0


def with_own(folder: Path, count: int, schema: object) -> Path:
    """The rows of `write`, the first with its fields in another order, each with its own schema."""
    rows, _ = write(folder, count, wrong=1)
    lines = [json.loads(line) | {"schema": schema} for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows


def test_a_rows_own_schema_is_checked_beside_the_score(tmp_path: Path, model_folder: Path) -> None:
    rows = with_own(tmp_path, 40, SCHEMA)
    told = command("evaluate", model_folder, "--test", rows, "--metric", "json_f1", "--limit", 4, "--json")
    assert told.status == 0, told.err
    assert "1 of 4 accepted answers do not fit the schema of their own row; the first is" in told.err
    assert told.document["extras"]["fits_schema"] == 0.0, "a model that nothing holds to it"
    held = command("evaluate", model_folder, "--test", rows, "--metric", "json_f1", "--limit", 4, "--json",
                   "--schema", tmp_path / "schema.json")  # fmt: skip
    assert held.document["extras"]["fits_schema"] == 1.0


def test_a_rows_own_schema_that_cannot_be_followed_is_one_line_before_anything_runs(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--methods", "nearest", "--out", tmp_path / "out", "--model", model_folder, "--budget", "3h")
    wrong = with_own(tmp_path, 40, {"type": "thing"})
    said = command("compare", wrong, *options).line
    assert "column `schema`" in said and "rows.jsonl:1: the schema cannot be followed" in said
    right = with_own(tmp_path, 40, SCHEMA | {"title": "unseen so far"})
    monkeypatch.setattr(grammar, "find_spec", lambda name: None)
    grammar._matcher_of_bytes.cache_clear()
    assert "need llguidance" in command("compare", right, *options).line
    assert not (tmp_path / "out").exists()
