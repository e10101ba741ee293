"""benchmarks/lookup.py: the texts are the same with and without, and the keys of its JSON."""

import json
import sys

import pytest
import tiny_llama
from load_script import load_script


def test_the_kinds_and_the_json(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lookup = load_script("benchmarks/lookup.py")
    monkeypatch.setattr(lookup, "LIMIT", 12)
    monkeypatch.setattr(lookup, "questions", lambda kind: [f"{kind} one", f"{kind} two"])
    path = tiny_llama.write_gguf(tmp_path / "model.gguf")
    monkeypatch.setattr(sys, "argv", ["lookup.py", "--model", str(path), "--rounds", "1"])
    lookup.main()
    *lines, last = capsys.readouterr().out.splitlines()
    (row,) = (value for key, value in json.loads(last).items() if key != "cpu")
    assert set(row) == {"lookup_ratio", "lookup_acceptance", "kinds"}
    assert list(row["kinds"]) == [*lookup.KINDS, "together"] and len(lines) == 5
    assert all(each["ratio"] > 0 for each in row["kinds"].values())


def test_every_kind_has_questions() -> None:
    lookup = load_script("benchmarks/lookup.py")
    assert all(len(lookup.questions(kind)) > 1 for kind in lookup.KINDS)
