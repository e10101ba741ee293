"""benchmarks/row_problems.py: so many labels are wrong as were put in, and the listed ones are counted."""

import json
from pathlib import Path

import numpy as np
import pytest
from load_script import load_script

from riyaz.data.formats import load

WORDS = {
    "delivery": ("parcel", "courier", "shipment", "doorstep", "tracking", "van", "driver"),
    "billing": ("invoice", "payment", "refund", "charge", "receipt", "bank", "fee"),
}
FRAMES = ("where is my {}", "the {} is wrong", "help with the {}", "{} again", "no {} since monday", "my {}?")


def test_wrong_labels_are_put_in_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path))
    script = load_script("benchmarks/row_problems.py")
    rows = [(frame.format(word), label) for frame in FRAMES for label, words in WORDS.items() for word in words]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    data = load(path)
    alike = np.eye(len(rows))
    for kind in script.KINDS:
        changed = script.with_wrong_labels(list(data.examples), 0.1, kind, 0, alike)
        assert sum(a.answer != b.answer for a, b in zip(changed, data.examples)) == 8
    lines = list(script.measured(data, [0.1], [0, 1]))
    assert [line["kind"] for line in lines] == ["random", "near"] and lines[0]["wrong"] == 8
    assert lines[0]["recall"] >= 0.5 and lines[0]["precision"] >= 0.5
