"""Excel workbooks: what a sheet shows is what is read; what is wrong is one line with file, sheet and row."""

import datetime
import importlib
import zipfile
from pathlib import Path

import openpyxl
import pytest
from refusals import assert_refused
from test_formats import pairs, workbook

from riyaz.data import bounds, formats, many_files
from riyaz.data import workbook as workbooks

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def rows_of(path: Path) -> list:
    """The rows of a workbook's first sheet."""
    (table,) = many_files.read_tables(path)
    return table.rows


def with_sheet(path: Path, xml: str, **parts: str) -> Path:
    """A workbook whose first sheet is this XML; `parts` replaces further parts by their file's name."""
    workbook(path, [["text", "label"], ["t", "l"]])
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["xl/worksheets/sheet1.xml"] = xml.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, parts.get(Path(name).stem, data))
    return path


def sheet(*rows: str, more: str = "", head: str = "") -> str:
    """A sheet's XML from the XML of its rows."""
    body = "".join(f'<row r="{n}">{row}</row>' if not row.startswith("<row") else row for n, row in enumerate(rows, 1))
    return f"{HEAD}{head}<worksheet {MAIN}><sheetData>{body}</sheetData>{more}</worksheet>"


def text(place: str, value: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'


NAMES = text("A1", "text") + text("B1", "label")


def test_values_are_those_that_the_sheet_shows(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1)
    values = [1.0, 0.1 + 0.2, -7, True, day, day.replace(hour=14, minute=30), datetime.time(9, 5), 1e300, " a\nb "]
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], *([value, "l"] for value in values)])
    shown = [row["text"] for _, row in rows_of(path)]
    assert shown == [1, 0.3, -7, True, "2024-05-01", "2024-05-01 14:30:00", "09:05:00", 1e300, " a\nb "]
    assert type(shown[0]) is int
    assert [prompt for prompt, _ in pairs(formats.load(path))][:4] == ["1", "0.3", "-7", "true"]


def test_empty_rows_and_columns_are_passed_over_and_places_name_sheet_and_row(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx",
        [[], [None, "text", None, "label", None], [None, "t", None, "l"], [None, " "], [None, "u", None, "m"], [], []],
    )
    dataset = formats.load(path)
    assert dataset.columns == ("text", "label") and pairs(dataset) == [("t", "l"), ("u", "m")]
    assert [example.where for example in dataset.examples] == ["a.xlsx:Sheet:3", "a.xlsx:Sheet:5"]
    assert dataset.place(dataset.examples[0]) == str(tmp_path / "a.xlsx:Sheet:3")
    workbook(path, [["text", "label"], ["t", None], ["u", "l"], ["v", ""], ["w", "#N/A"]])
    with assert_refused("a.xlsx:Sheet:2: the row has no 'label' (and 2 more: rows 4, 5)"):
        formats.load(path)


def test_the_first_visible_sheet_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.sheet_state = "hidden"
    for title, label in ("My rows", "l"), ("other", "m"):
        made = book.create_sheet(title)
        made.append(["text", "label"])
        made.append(["t", label])
    book.save(tmp_path / "a.xlsx")
    (example,) = formats.load(tmp_path / "a.xlsx").examples
    assert example.answer == "l" and example.where == "a.xlsx:My rows:2"


def test_merged_cells_have_the_value_of_their_first(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in ["text", "label"], ["t", "l"], ["u", None], ["v", None], ["w", "m"]:
        book.active.append(row)
    book.active.merge_cells("B2:B4")
    book.save(tmp_path / "a.xlsx")
    assert pairs(formats.load(tmp_path / "a.xlsx")) == [("t", "l"), ("u", "l"), ("v", "l"), ("w", "m")]
    book.active.insert_rows(1)
    book.active["A1"] = "My rows"
    book.active.merge_cells("A1:B1")
    book.save(tmp_path / "a.xlsx")
    with assert_refused("a.xlsx:Sheet:1: two columns have the same name", "the first row must name each column once"):
        formats.load(tmp_path / "a.xlsx")


def test_a_formula_has_its_stored_result(tmp_path: Path) -> None:
    solved = '<c r="B2" t="str"><f>UPPER("l")</f><v>L</v></c>', '<c r="B3"><f>1+1</f><v>2</v></c>'
    empty = '<c r="C3" t="str"><f>""</f><v></v></c>'
    path = with_sheet(
        tmp_path / "a.xlsx",
        sheet(NAMES + text("C1", "c"), text("A2", "t") + solved[0], text("A3", "u") + solved[1] + empty),
    )
    assert pairs(formats.load(path)) == [("t", "L"), ("u", "2")]
    workbook(path, [["text", "label"], ["t", "l"], ["u", "=1+1"]])  # openpyxl does not calculate
    with assert_refused("a.xlsx:Sheet:3: B3 is a formula without a stored result", "save it again"):
        formats.load(path)


def test_a_value_without_a_column_name_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], ["t", "l"], ["u", "m", None, "stray"]])
    with assert_refused("a.xlsx:Sheet:3: column D holds 'stray' but has no name in row 1; name the column"):
        formats.load(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK", "not an Excel workbook, or damaged"),
        (workbooks.OLE + bytes(600), "is encrypted, or an Excel file of before 2007; open it"),
        (b"text,label\nt,l\n", "not an Excel workbook, or damaged"),
    ],
)
def test_what_is_no_workbook_is_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with assert_refused("a.xlsx: ", what):
        formats.load(tmp_path / "a.xlsx")


def test_damaged_workbooks_are_one_line(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], ["t", "l"]])
    whole = path.read_bytes()
    for content in whole[:-40], whole[: len(whole) // 2] + whole[len(whole) // 2 + 9 :]:
        path.write_bytes(content)
        with assert_refused("a.xlsx: "):
            formats.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "b")
    with assert_refused("a.xlsx: cannot be read (KeyError", "save it again"):
        formats.load(path)
    workbook(path, [])
    with assert_refused("a.xlsx:Sheet: the first sheet is empty"):
        formats.load(path)
    workbook(path, [["text", "label"]])
    with assert_refused("the first sheet has a header and no rows"):
        formats.load(path)


def test_without_openpyxl_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], ["t", "l"]])

    def absent(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", absent)
    with assert_refused("a.xlsx: reading Excel workbooks needs openpyxl", "pip install -e '.[data]'"):
        formats.load(path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_sheet(tmp_path / "a.xlsx", sheet(NAMES, more=" " * (workbooks.MAX_XML + 1)))
    assert path.stat().st_size < 2**20
    with assert_refused("a.xlsx: ", "bytes of workbook unpack to 67,1", "at most 67,108,864 are read; save the sheet"):
        formats.load(path)
    corner = sheet(NAMES, text("A2", "t") + text("B2", "l"), f'<row r="99999999999">{text("A99999999999", "x")}</row>')
    with assert_refused("a.xlsx:Sheet:1048577: the sheet has more than 1,048,576 rows or"):
        formats.load(with_sheet(path, corner))
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    with assert_refused("a.xlsx: cannot be read (", "EntitiesForbidden"):
        formats.load(with_sheet(path, sheet(NAMES, text("A2", "&b;") + text("B2", "l"), head=entities)))
    monkeypatch.setattr(bounds, "BOMB_BYTES", 1000)
    workbook(path, [["text", "label"], *[["t" * 20_000, "l"]] * 400])  # one shared text, 400 times
    with assert_refused("a.xlsx: ", "bytes decode to more than", "reading stopped"):
        formats.load(path)


def test_a_cell_at_the_corner_of_the_grid_costs_nothing(tmp_path: Path) -> None:
    far = f'<row r="1048576">{text("XFD1048576", "x")}</row>'
    with assert_refused("a.xlsx:Sheet:1048576: column XFD holds 'x' but has no name in row 1"):
        formats.load(with_sheet(tmp_path / "a.xlsx", sheet(NAMES, text("A2", "t") + text("B2", "l"), far)))


def test_what_a_sheet_says_of_its_size_is_not_believed(tmp_path: Path) -> None:
    said = sheet(NAMES, text("A2", "t") + text("B2", "l")).replace("<sheetData>", '<dimension ref="A1"/><sheetData>')
    assert pairs(formats.load(with_sheet(tmp_path / "a.xlsx", said))) == [("t", "l")]


def test_merged_ranges_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MAX_MERGED", 2)
    merged = "".join(f'<mergeCell ref="B{n}:B{n + 1}"/>' for n in (2, 4, 6))
    path = with_sheet(tmp_path / "a.xlsx", sheet(NAMES, text("A2", "t"), more=f"<mergeCells>{merged}</mergeCells>"))
    with assert_refused("a.xlsx:Sheet: has more than 2 merged ranges; unmerge the cells"):
        formats.load(path)
