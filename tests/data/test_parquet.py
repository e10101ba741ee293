"""Parquet files and saved data sets: read by pyarrow, named when they are not what they say."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from refusals import assert_refused
from test_formats import ROWS, make, pairs, saved

from riyaz.data import arrow_batches, formats, many_files, parquet

# Parquet and saved data sets


def test_label_numbers_become_names_and_strange_values_stay_plain(tmp_path):
    feature = {"names": ["bad", "good"], "_type": "ClassLabel"}
    columns = {
        "text": ["t", "u"],
        "label": [1, 0],
        "image": [b"\x89", None],
        "seen": [pa.scalar(0, pa.date32()).as_py()] * 2,
    }
    about = json.dumps({"info": {"features": {"label": feature, "text": {"_type": "Value"}}}})
    content = pa.table(columns).replace_schema_metadata({"huggingface": about})
    pq.write_table(content, tmp_path / "a.parquet")
    dataset = formats.load(tmp_path / "a.parquet")
    assert pairs(dataset) == [("t", "good"), ("u", "bad")] and dataset.unused_columns == ("image", "seen")
    (read,) = many_files.read_tables(tmp_path / "a.parquet")
    assert read.rows[0] == (1, {"text": "t", "label": "good", "image": None, "seen": "1970-01-01"})
    features = {"text": {"_type": "Value"}, "label": feature}
    folder = saved(tmp_path / "s", [{"text": "t", "label": 1}, {"text": "u", "label": 0}], features)
    assert pairs(formats.load(folder)) == [("t", "good"), ("u", "bad")]
    folder = saved(tmp_path / "r", [{"text": "t", "label": 1}, {"text": "u", "label": 2}], features)
    with assert_refused("data-00001-of-00002.arrow:1: 'label' is 2, but the file names 2 labels"):
        formats.load(folder)
    folder = saved(tmp_path / "q", [{"text": "t", "label": -1}, {"text": "u", "label": 1}], features)
    with assert_refused("data-00000-of-00002.arrow:1: the row has no 'label'"):
        formats.load(folder)


def test_conversations_in_parquet_have_nulls_where_json_has_nothing(tmp_path):
    turns = [
        {"role": "user", "from": None, "content": "q", "tool_calls": None, "weight": None},
        {"role": "assistant", "from": None, "content": "a", "tool_calls": None, "weight": 1},
    ]
    pq.write_table(pa.Table.from_pylist([{"messages": turns}]), tmp_path / "a.parquet")
    assert pairs(formats.load(tmp_path / "a.parquet")) == [("q", "a")]


def test_without_pyarrow_one_line_names_the_extra(tmp_path, monkeypatch):
    path, folder = make(tmp_path / "rows.parquet"), make(tmp_path / "saved")

    def absent(module):
        raise ImportError(module)

    monkeypatch.setattr(parquet.importlib, "import_module", absent)
    with assert_refused("rows.parquet: reading Parquet needs pyarrow", "pip install -e '.[data]'"):
        formats.load(path)
    with assert_refused("a data set saved by datasets needs pyarrow"):
        formats.load(folder)


def test_damaged_parquet_is_one_line(tmp_path, monkeypatch):
    path = make(tmp_path / "rows.parquet")
    whole = path.read_bytes()
    for content in (
        whole[:-30],
        b"PAR1" + bytes(100) + b"PAR1",
        b"text,label\n",
        whole[: len(whole) // 2] + whole[-80:],
    ):
        path.write_bytes(content)
        with assert_refused("rows.parquet: cannot be read ("):
            formats.load(path)
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), path)
    with assert_refused("no rows"):
        formats.load(path)
    path.write_bytes(whole)
    monkeypatch.setattr(arrow_batches, "MAX_BYTES", 10)
    with assert_refused(
        "rows.parquet: holds ", " bytes and 8 values, and 10 and 50,000,000 are read at most; split it"
    ):
        formats.load(path)


def repeated(path: Path, text: str, rows: int) -> Path:
    """A Parquet file that holds a text once and refers to it in every row."""
    indices = pa.array([0] * rows, pa.int32())
    content = pa.table({"text": pa.DictionaryArray.from_arrays(indices, [text]), "label": ["l"] * rows})
    pq.write_table(content, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30)
    return path


def test_a_text_that_is_stored_once_is_not_copied_to_every_row(tmp_path):
    path = repeated(tmp_path / "a.parquet", "b" * 14_000_000, 1000)
    assert path.stat().st_size < 10_000
    before = pa.total_allocated_bytes()
    with assert_refused("a.parquet:1: the row has 14,000,001 characters, and a row may have 1,048,576"):
        formats.load(path)
    assert pa.total_allocated_bytes() - before < 100 * 2**20
    path = repeated(tmp_path / "a.parquet", "b" * 1_000_000, 100_000)
    with assert_refused("a.parquet: ", "bytes decode to more than 16,000,016 characters; reading stopped"):
        formats.load(path)
    path = repeated(tmp_path / "a.parquet", "b" * 100, 1000)
    assert pairs(formats.load(path)) == [("b" * 100, "l")] * 1000


def test_rows_are_counted_before_they_are_read(tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": ["t"] * 2_000_000}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    monkeypatch.setattr(pq, "ParquetFile", None)
    with assert_refused("a.parquet: has more than 1,000,000 rows; take a part of them"):
        formats.load(tmp_path / "a.parquet")


def test_long_rows_inside_of_lists_and_arrow_files_are_named(tmp_path):
    turns = [{"role": "user", "content": "q" * 600_000}, {"role": "assistant", "content": "a" * 600_000}]
    pq.write_table(pa.Table.from_pylist([{"messages": turns[:1]}, {"messages": turns}]), tmp_path / "a.parquet")
    with assert_refused("a.parquet:2: the row has 1,200,029 characters"):
        formats.load(tmp_path / "a.parquet")
    folder = saved(tmp_path / "s", [{"text": "t", "label": "l"}, {"text": "t" * 2**21, "label": "l"}])
    with assert_refused("data-00001-of-00002.arrow:1: the row has 2,097,153 characters"):
        formats.load(folder)


def test_sizes_are_those_of_the_values():
    texts = ["", "ab", None, "é", "x" * 40]
    shared = pa.array(texts).dictionary_encode()
    turns = [[{"r": "u", "c": "abc"}], [], None, [{"r": None, "c": "d"}, None], [{"r": "a", "c": "b"}] * 3]
    fixed = pa.array([[1, 2]] * 5, pa.list_(pa.int64(), 2))
    whole = [
        (pa.array(texts), [0, 2, 0, 2, 40]),
        (pa.array(texts, pa.large_string()), [0, 2, 0, 2, 40]),
        (shared, [0, 2, 0, 2, 40]),
        (pa.array(turns), [12, 0, 0, 17, 30]),
        (
            pa.array([[("k", "v")], [], None, [("kk", "vv")] * 2, []], pa.map_(pa.string(), pa.string())),
            [10, 0, 0, 24, 0],
        ),
        (pa.array([1, None, 2, 3, 4]), [8] * 5),
        (fixed, [32] * 5),
    ]
    for array, sizes in whole:
        assert arrow_batches.sizes_of(array).tolist() == sizes, array.type
        assert arrow_batches.sizes_of(array.slice(1, 3)).tolist() == sizes[1:4], array.type


def test_a_saved_data_set_must_be_true(tmp_path):
    folder = saved(tmp_path / "a", ROWS, {"text": {}, "kind": {}})
    with assert_refused("data-00000-of-00002.arrow: the columns are text, label here and text, kind in dataset_info"):
        formats.load(folder)
    for n, (state, what) in enumerate((
        ({"_data_files": [{"filename": "../x.arrow"}]}, "not a list of bare file names"),
        ({"_data_files": []}, "not a list of bare file names"),
        ({"_data_files": [{"filename": "x.arrow"}]}, "state.json names 'x.arrow', which is missing"),
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "flatten_indices()"),
    )):  # fmt: skip
        with assert_refused(what):
            formats.load(saved(tmp_path / f"b{n}", ROWS, **state))
    (folder / "state.json").write_text("[")
    with assert_refused("state.json: not a JSON object"):
        formats.load(folder)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["b0"]}')
    with assert_refused("no split 'train' in dataset_dict.json", "(b0)"):
        formats.open_data(tmp_path)
    for splits, what in ('["../a"]', "not a list of folder names"), ('["c"]', "the split 'c' has no state.json"):
        (tmp_path / "dataset_dict.json").write_text(f'{{"splits": {splits}}}')
        with assert_refused(what):
            formats.open_data(tmp_path)
