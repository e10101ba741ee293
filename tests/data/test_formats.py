"""docs/data.md row by row: formats of columns, what is asked instead of guessed, files, folders, encodings."""

import gzip
import json
import re
import shlex
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import assert_refused

from riyaz.data import encodings, formats, many_files
from riyaz.errors import RiyazError
from riyaz.text.calls import turn_text

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
ROWS = [{"text": f"t{n} é", "label": "lm"[n % 2]} for n in range(4)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
USER = {"role": "user", "content": "q"}
EXPECTED = [(row["text"], row["label"]) for row in ROWS]


def table(section: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has that head, code marks taken off."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


def flags(text: str) -> dict[str, str]:
    """`--prompt-column x` as keywords of `load`."""
    words = shlex.split(text)
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    return dict(zip(names, words[1::2], strict=True))


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def shown(turn: dict) -> str:
    """A turn as the page writes it: definitions of tools by their names, calls as text."""
    names = [tool["function"]["name"] for tool in turn.get("tools", ())]
    return f"tools: {', '.join(names)}" if names else f"{turn['role']}: {turn_text(turn)}"


def pairs(dataset) -> list[tuple[str, str]]:
    """(prompt, answer) of every example."""
    return [(example.prompt, example.answer) for example in dataset.examples]


def saved(folder: Path, rows: list[dict], features: dict | None = None, **state: object) -> Path:
    """A folder as `datasets` 4 writes it with save_to_disk: two Arrow streams and two JSON files."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-00002.arrow" for n in range(2)]
    for n, name in enumerate(names):
        part = pa.Table.from_pylist(rows[n::2])
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, part.schema) as writer:
            writer.write_table(part)
    plain = {name: {"dtype": "string", "_type": "Value"} for name in rows[0]}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or plain}))
    record = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(record | state))
    return folder


# Columns


@pytest.mark.parametrize("cells", table("Columns", "format"), ids=lambda cells: cells[0])
def test_every_format_of_the_page_is_read_as_it_says(tmp_path, cells):
    _, row, read_as, messages, answers = cells
    dataset = formats.load(write(tmp_path / "a.jsonl", json.loads(row)), turns="last")
    (example,) = dataset.examples
    assert dataset.format == read_as
    assert [shown(turn) for turn in example.messages] == json.loads(messages)
    assert list(example.answers) == json.loads(answers)
    assert not {"system", "tools"} & set(dataset.unused_columns)


@pytest.mark.parametrize("cells", table("What is guessed", "a row"), ids=lambda cells: cells[1])
def test_what_is_guessed_is_read_as_the_page_says_and_said(tmp_path, cells):
    dataset = formats.load(write(tmp_path / "a.jsonl", json.loads(cells[0])))
    assert dataset.format == cells[1] and len(dataset.notes) == 1
    assert dataset.notes[0].startswith("a.jsonl: columns guessed from their names: ")


@pytest.mark.parametrize("cells", table("What is not guessed", "a row"), ids=lambda cells: cells[2])
def test_what_is_ambiguous_is_asked_for_and_settled_as_the_page_says(tmp_path, cells):
    row, line, settled = cells
    path = write(tmp_path / "a.jsonl", json.loads(row))
    with assert_refused("a.jsonl", line):
        formats.load(path)
    assert len(formats.load(path, **flags(settled)).examples) == 1


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": [USER, {"role": "assistant", "content": "a", "weight": 0.5}]}, "weight 0.5 is neither 0 nor 1"),
        ({"messages": [USER, {"role": "assistant", "content": "a", "weight": True}]}, "weight True is neither"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url'; only text is supported"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": "f"}]}, "list of calls"),
        ({"messages": [USER], "tools": "not JSON"}, "neither a list nor JSON"),
        ({"messages": [{"role": "system", "content": "s"}, USER], "system": "z"}, "different system turns"),
        ({"messages": "q"}, "not a list of messages"),
    ],
)  # fmt: skip
def test_broken_conversations_are_refused_with_their_line(tmp_path, row, what):
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    with assert_refused("a.jsonl:2: ", what):
        formats.load(write(tmp_path / "a.jsonl", good, row))


def test_results_of_tools_that_follow_each_other_are_one_turn_and_a_call_is_an_answer(tmp_path):
    call = {"name": "f", "arguments": {"x": None, "y": "é"}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wait", "function_call": call},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "tool", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "tool_calls": [{"function": call}, {"function": call}]},
    ]
    _, example = formats.load(write(tmp_path / "a.jsonl", {"messages": turns})).examples
    text = '<tool_call>\n{"name": "f", "arguments": {"y": "é"}}\n</tool_call>'
    assert example.answer == f"{text}\n{text}" and example.messages[1]["content"] == f"wait\n{text}"
    assert example.prompt == "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
    assert [turn["role"] for turn in example.messages] == ["user", "assistant", "user"]


def workbook(path: Path, rows: list) -> Path:
    """A workbook with one sheet of these rows."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


# Files


def make(path: Path) -> Path:
    """The file of four rows that its name promises."""
    kind = path.name.removeprefix("rows").removesuffix(".gz")
    if not kind.startswith("."):
        return saved(path, ROWS)
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    if kind == ".xlsx":
        return workbook(path, [["text", "label"], *EXPECTED])
    separator = {".csv": ",", ".tsv": "\t"}.get(kind)
    text = json.dumps(ROWS, indent=1) if kind == ".json" else JSONL
    if separator:
        text = "".join(separator.join(pair) + "\n" for pair in [("text", "label"), *EXPECTED])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", [cells[0] for cells in table("Files", "file")])
def test_every_kind_of_file_of_the_page_gives_the_same_rows(tmp_path, name):
    path = make(tmp_path / name)
    dataset = formats.load(path)
    if path.is_dir():
        assert sorted(pairs(dataset)) == EXPECTED and dataset.examples[0].where == "data-00000-of-00002.arrow:1"
        assert pairs(formats.open_data(path).train) == pairs(dataset)
    else:
        assert pairs(dataset) == EXPECTED and dataset.format == "text,label"
        assert len({example.where for example in dataset.examples}) == 4
        assert many_files.is_table(path)


@pytest.mark.parametrize("files", [cells[0].replace("`", "") for cells in table("Files", "folder")])
def test_every_folder_of_the_page_is_read_as_it_says(tmp_path, files):
    names = files.split(", ")
    if "dataset_dict.json" in names:
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test", "more"]}')
        for part in ("train", "test", "more"):
            saved(tmp_path / part, ROWS)
        folder = formats.open_data(tmp_path)
        assert len(folder.train.examples) == len(folder.test.examples) == 4 and folder.unused == ("more",)
        return
    for name in names:
        make(tmp_path / f"rows{Path(name).suffix}").rename(tmp_path / name)
    if {"train.jsonl", "train.csv"} <= set(names):
        with assert_refused("train.jsonl and train.csv are both in this folder"):
            formats.open_data(tmp_path)
        return
    folder = formats.open_data(tmp_path)
    assert len(folder.train.examples) == 4 * sum(name.startswith("train") for name in names)
    assert (folder.test is not None) == ("test.csv" in names) and folder.unused == ()


def test_a_schema_in_the_folder_is_read_and_other_tables_are_named(tmp_path):
    make(tmp_path / "rows.jsonl").rename(tmp_path / "train.jsonl")
    for name in ("schema.json", "other.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "riyaz.toml").write_text('schema = "schema.json"\n')
    assert formats.open_data(tmp_path).unused == ("other.json",)


def test_json_arrays_have_places_and_say_what_is_wrong(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\n[\n{"text": "t",\n"label": "l"},\n\n{"text": "u", "label": "m"}]\n')
    assert [example.where for example in formats.load(path).examples] == ["a.json:3", "a.json:6"]
    path.write_text(json.dumps(ROWS))
    assert [example.where for example in formats.load(path).examples] == [f"a.json:{n}" for n in (1, 2, 3, 4)]
    path.write_text(JSONL)
    assert pairs(formats.load(path)) == EXPECTED
    for text, parts in (
        ("[]", ["the array is empty"]),
        ('[{"text": "t", "label": "l"},\n]', ["a.json:2: not JSON (Expecting value"]),
        ('[{"text": "t", "label": "l"}\n{}]', ["a.json:2: '{' where a comma"]),
        ('[{"text": "t", "label": "l"}', ["the array does not end"]),
        ('[{"text": "t", "label": "l"},\n {"text": \n"u', ["a.json:3: not JSON", "column 1"]),
        ('[{"text": "t", "label": "l"}]\n[]', ["a.json:1: text follows the array"]),
        ('[{"text": "t", "label": "l"},\n7]', ["a.json:2: a number, not a JSON object"]),
        (
            '\n{\n"data": [{"text": "t"}, {}]\n}',
            ["a.json:2: one object spans lines 2 to 4", "'data' is a list of 2"],
        ),
        ('{\n"text": "t",\n"label": "l"\n}\n', ["lines 1 to 4; write an array of objects, or one object per line"]),
        ('{"text": "t"}\n{\n', ["a.json:2: not JSON", "an array of objects, or one object per line"]),
        ("[" * 100_000, ["a.json:1: not JSON"]),
    ):
        path.write_text(text)
        with assert_refused(*parts):
            formats.load(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_of_every_kind(tmp_path, name, newline):
    text = make(tmp_path / f"rows{Path(name).suffix}").read_text(encoding="utf-8")
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", newline).encode())
    assert pairs(formats.load(path)) == EXPECTED
    places = [example.where for example in formats.load(tmp_path / f"rows{path.suffix}").examples]
    assert [example.where for example in formats.load(path).examples] == [f"a{place[4:]}" for place in places]


# gzip


def test_a_gzip_bomb_is_one_line_and_is_not_unpacked(tmp_path, monkeypatch):
    """20 MiB in 20 kB: unpacking ends after 16 MiB."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((b" " * 1023 + b"\n") * 2**10) * 20)
    with assert_refused(
        "a.jsonl.gz: ", "bytes of gzip decompress to more than 16,777,216; decompression stopped", "split it"
    ):
        formats.load(path)
    monkeypatch.setattr(encodings, "MAX_BYTES", 1000)
    path.write_bytes(gzip.compress(JSONL.encode() * 20))
    with assert_refused("decompression stopped"):
        formats.load(path)


def test_damaged_gzip_is_one_line(tmp_path):
    whole = gzip.compress(JSONL.encode() * 50)
    path = tmp_path / "a.jsonl.gz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content, what in (
        (JSONL.encode(), "not gzip"),
        (whole[:-20], "cut short"),
        (whole[:5], "cut short"),
        (bytes(flipped), "a.jsonl.gz"),
        (whole + b"more", "not gzip"),
        (gzip.compress(b""), "is empty"),
    ):
        path.write_bytes(content)
        with assert_refused("a.jsonl.gz: ", what):
            formats.load(path)
    path.write_bytes(gzip.compress(JSONL.encode()) + gzip.compress(JSONL.encode()) + bytes(10))
    assert pairs(formats.load(path)) == EXPECTED * 2


# Encodings


@pytest.mark.parametrize("cells", table("Encodings", "encoding"), ids=lambda cells: cells[0])
def test_encodings_are_named_with_the_first_bad_byte_or_read_by_the_flag(tmp_path, cells):
    name, line, flag = (*cells, "", "")[:3]
    path = tmp_path / "rows.jsonl"
    text = (
        '{"text": "t", "label": "l"}\n{"text": "caf\u00e9", "label": "'
        + ("\u20ac" if name == "cp1252" else "m")
        + '"}\n'
    )
    path.write_bytes(text.encode(name))
    if line:
        with pytest.raises(RiyazError) as error:
            formats.load(path)
        assert str(error.value) == f"{tmp_path}/{line}"
    examples = formats.load(path, **flags(flag)).examples
    assert [example.prompt for example in examples] == ["t", "caf\u00e9"]


def test_wrong_encodings_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(JSONL, encoding="utf-8")
    for name, parts in (
        ("latin-1", ["a.jsonl: is UTF-8, and latin-1 would garble it", "leave --encoding out"]),
        ("latin1x", ["'latin1x' is not a text encoding", "such as utf-8"]),
        ("base64", ["'base64' is not a text encoding"]),
        ("ascii", ["a.jsonl:1: byte 0xC3 at byte 14 of the file is not ascii"]),
        ("utf-32", ["a.jsonl", "is not utf-32"]),
    ):
        with assert_refused(*parts):
            formats.load(path, encoding=name)
    (tmp_path / "riyaz.toml").write_text('encoding = "utf-16"\n')
    (tmp_path / "train.csv").write_bytes("text,label\nä,l\n".encode("utf-16"))
    assert pairs(formats.open_data(tmp_path).train) == [("ä", "l")]


# Several files


def test_a_pattern_is_read_as_one_data_set(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    write(tmp_path / "a" / "x.jsonl", ROWS[0], ROWS[1])
    write(tmp_path / "b" / "x.jsonl", ROWS[2], {**ROWS[3], "more": 1})
    dataset = formats.load(tmp_path / "*" / "x.jsonl")
    assert pairs(dataset) == EXPECTED and dataset.columns == ("text", "label", "more")
    assert [example.where for example in dataset.examples] == [
        "a/x.jsonl:1",
        "a/x.jsonl:2",
        "b/x.jsonl:1",
        "b/x.jsonl:2",
    ]
    assert dataset.place(dataset.examples[3]) == str(tmp_path / "b/x.jsonl:2") and len(dataset.sha256) == 64
    write(tmp_path / "b" / "x.jsonl", {"prompt": "p", "completion": "c"})
    with assert_refused("*/x.jsonl: the files have different columns: a/x.jsonl has text, label but b/x.jsonl has "):
        formats.load(tmp_path / "*" / "x.jsonl")
    write(tmp_path / "b" / "x.jsonl", ROWS[2], {"text": "t"})
    with assert_refused("b/x.jsonl:2: the row has no 'label'"):
        formats.load(tmp_path / "*" / "x.jsonl")
    with assert_refused("*.csv: no file matches this pattern"):
        formats.load(tmp_path / "*.csv")
    write(tmp_path / "[x].jsonl", *ROWS)  # a file of that name is no pattern
    assert pairs(formats.load(tmp_path / "[x].jsonl")) == EXPECTED


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train-00000-of-00002.jsonl"], ["train-00001-of-00002.jsonl is missing among 1 shards"]),
        (
            ["train-00000-of-00001.jsonl", "train.jsonl"],
            ["train.jsonl and train-*-of-00001.jsonl are both in this folder"],
        ),
        (["train-00000-of-00001.jsonl", "train-00000-of-00001.csv"], ["are both in this folder"]),
        (["train.jsonl", "train.jsonl.gz"], ["train.jsonl and train.jsonl.gz are both in this folder"]),
        (["train-00000-of-00001.jsonl", "train-00007-of-00001.jsonl"], ["there are more than 1 files among 2 shards"]),
    ],
)
def test_shards_that_conflict_or_are_missing_are_named(tmp_path, names, parts):
    for name in names:
        write(tmp_path / name, *ROWS)
    with assert_refused(*parts):
        formats.open_data(tmp_path)


def test_the_pages_tables_are_seen():
    assert len(table("Columns", "format")) > 20 and len(re.findall(r"^## ", PAGE, re.MULTILINE)) == 12


def test_a_table_of_many_columns_is_not_listed_whole(tmp_path: Path) -> None:
    names = [f"measurement_{number}" for number in range(400)]
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n" + ("1," * 399 + "2\n") * 30)
    for known in ({}, {"prompt_column": "no such"}):
        with pytest.raises(RiyazError) as refused:
            formats.load(tmp_path / "wide.csv", **known)
        assert "measurement_5, and 394 more" in str(refused.value) and len(str(refused.value)) < 600
