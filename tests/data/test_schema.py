"""The file of a schema, and the tasks that refuse one."""

import json
from pathlib import Path

import pytest
import tiny_comparison
from refusals import assert_refused

from riyaz.data import formats
from riyaz.data.schema import MAX_SCHEMA, as_written, read_schema, schema_text
from riyaz.data.task import detect
from riyaz.quality.schema_rows import misfits, schema_notes

PLAIN = '{"type": "object", "properties": {"where": {"type": "string"}, "id": {"type": "integer"}}}'


def deep(levels: int) -> str:
    return '{"items": ' * levels + "{}" + "}" * levels


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not JSON"), (b"[]", "is no JSON Schema"), (b'"x"', "is no JSON Schema"), (b"\xff", "is not UTF-8"),
        (b'{"maximum": NaN}', "NaN is no number"), (b" " * (MAX_SCHEMA + 1), "more than 65,536 characters"),
        (deep(80).encode(), "nested more than 32 deep"), (b"[" * 60_000, "is not JSON"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_schema_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "s.json").write_bytes(content)
    with assert_refused("s.json: ", says):
        read_schema(tmp_path / "s.json")


def test_a_file_that_is_not_there_or_is_a_folder_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, Path("/dev/zero")):
        with assert_refused(str(path)):
            read_schema(path)


def test_a_schema_is_one_line_with_its_fields_in_order(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(json.loads(PLAIN), indent=4), encoding="utf-8-sig")
    text = read_schema(tmp_path / "s.json")
    assert text == schema_text(PLAIN, "s.json") == json.dumps(json.loads(PLAIN)) and "\n" not in text


def test_a_schema_has_the_blanks_of_the_answers() -> None:
    one = json.loads(as_written(PLAIN, ['{"a": 1}', '{"a": 2}\n']))
    assert one.pop("x-guidance") == {"whitespace_pattern": " "} and one == json.loads(PLAIN)
    assert as_written(PLAIN, ['{"a": 1}', '{\n  "a": 2\n}']) == PLAIN
    own = json.dumps({**json.loads(PLAIN), "x-guidance": {"whitespace_flexible": False}})
    assert as_written(own, ['{"a": 1}']) == own


def test_answers_that_are_chosen_refuse_a_schema_by_name(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(PLAIN)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny_comparison.closed_rows(30, "x")))
    with assert_refused("--schema: these answers are a closed set of labels", "--task free"):
        detect(formats.load(rows), schema=tmp_path / "s.json")
    task = detect(formats.load(rows), kind="free", schema=tmp_path / "s.json")
    assert json.loads(task.schema)["properties"] == json.loads(PLAIN)["properties"]
    assert detect(formats.load(rows), kind="free").schema == ""


@pytest.mark.parametrize(
    ("parameters", "says"),
    [({"type": "thing"}, "describes no object"), ({"properties": {"x": {"type": "wheel"}}}, "cannot be followed")],
)
def test_a_tool_that_cannot_be_followed_is_named_with_its_row(
    tmp_path: Path, parameters: dict[str, object], says: str
) -> None:
    path = tmp_path / "rows.jsonl"
    with open(path, "w") as file:
        for number in range(6):
            function = {"name": "book", "parameters": parameters if number == 3 else {"type": "object"}}
            turns = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
            file.write(json.dumps({"tools": [{"type": "function", "function": function}], "messages": turns}) + "\n")
    examples = formats.load(path).examples
    for refuses in (misfits, schema_notes):
        with assert_refused("rows.jsonl:4", says):
            refuses("tools", examples)
