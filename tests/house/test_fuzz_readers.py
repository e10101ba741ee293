"""Some hundred mutated inputs per reader; `python tests/house/fuzz_readers.py` runs a million."""

import json
import os
import random
import subprocess
import sys
import tempfile

import fuzz_readers
import grids
import pytest
from fuzz_forks import Forks

from riyaz.confined import module_command
from riyaz.errors import RiyazError

INPUTS = 400 if grids.WHOLE else 150  # of a reader


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """The readers' folders lie below pytest's, which removes them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("readers")))


@pytest.mark.parametrize("reader", fuzz_readers.READERS)
def test_mutated_inputs_are_read_or_refused_in_one_line(reader):
    counts, crashes = fuzz_readers.fuzz(reader, INPUTS, seed=7)
    assert not crashes, crashes[:5]
    assert sum(counts.values()) == INPUTS
    refused = {"checkpoints": 0, "pdfs": 1 / 8}.get(reader, 1 / 4)  # damaged checkpoints are passed over
    assert counts["refused"] > refused * INPUTS
    assert counts["accepted"] > 5


def test_a_campaign_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_readers, "STATES", tmp_path)
    monkeypatch.setattr(fuzz_readers, "SLICE", 40)
    numbers = []
    fuzz = fuzz_readers.fuzz
    monkeypatch.setattr(fuzz_readers, "fuzz", lambda *of: numbers.append((of[3], of[1])) or fuzz(*of))
    fuzz_readers.campaign("questions", 60, float("inf"), 3, 0)
    known = fuzz_readers.campaign("questions", 130, float("inf"), 3, 0)
    assert numbers == [(0, 40), (40, 20), (60, 40), (100, 30)]
    whole, crashes = fuzz("questions", 130, 3)
    assert {name: known[name] for name in whole} == whole and known["crashes"] == crashes == []


def test_a_campaign_leaves_no_folder(tmp_path):
    command = [sys.executable, fuzz_readers.__file__, "questions", "--inputs", "20", "--first", "1"]
    done = subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("questions: 20 inputs"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_crash_and_an_unclear_line_are_seen():
    def broken(data):
        if data:
            raise RiyazError("\x1b[2J" + "x" * 2000)
        raise IndexError("tuple index out of range")

    assert fuzz_readers.outcome(broken, b"") == "IndexError: 'tuple index out of range'"
    assert fuzz_readers.outcome(broken, b"x").startswith("no clear line")


def test_an_input_is_the_same_every_time():
    seed = b"0123456789" * 9
    inputs = [fuzz_readers.mutated(seed, random.Random(number)) for number in range(50)]
    assert inputs == [fuzz_readers.mutated(seed, random.Random(number)) for number in range(50)]
    assert len(set(inputs)) > 45 and all(data != seed for data in inputs[:5])
    value = json.dumps({"a": [1, 2, {"b": "c"}]}).encode()
    assert len({fuzz_readers.mutated_json(value, random.Random(number)) for number in range(50)}) > 20


def test_every_file_of_the_folders_is_opened():
    seeds, read = fuzz_readers.READERS["folders"]()
    assert len(seeds) == 11 and [fuzz_readers.outcome(read, seed) for seed in seeds] == ["accepted"] * 11


@pytest.mark.parametrize("content", ["whole", "damaged", "no pages"])
def test_a_forked_worker_says_what_a_fresh_one_says(content, tmp_path):
    tables, _ = fuzz_readers.READERS["tables"]()
    pages, _ = fuzz_readers.READERS["pdfs"]()
    table, page = tables[0][1:], pages[0]
    if content != "whole":
        table, page = (each[: len(each) // 2] if content == "damaged" else b"" for each in (table, page))
    (tmp_path / "rows.parquet").write_bytes(table)
    for words, given in (
        (("riyaz.data.parquet_worker", str(tmp_path / "rows.parquet"), "parquet"), b""),
        (("riyaz.retrieval.pdf_worker", "10", "1000"), page),
    ):
        command, environment = module_command(*words)
        fresh = subprocess.run(command, input=given, capture_output=True, env=environment)
        fork = Forks().run(command, given, environment)
        assert (fork.returncode, fork.stdout) == (fresh.returncode, fresh.stdout)


def test_few_inputs_need_a_child_process():
    seeds = [b"a", b"b", b"c"]
    chosen = [fuzz_readers._chosen(seeds, 1, 50, random.Random(number)) for number in range(1000)]
    assert 5 < chosen.count(b"c") < 50 and chosen.count(b"a") > 400
