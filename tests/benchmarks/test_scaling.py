"""benchmarks/scaling.py: which runs it asks for, what it does again, and what it makes of their files."""

import argparse
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import fake_run
import pytest
from load_script import load_script

from riyaz.config import Seconds

SCRIPT = Path(__file__).parents[2] / "benchmarks/scaling.py"
# In the place of riyaz: remembers its words, makes a folder; what it is to end with stands in a file.
STUB = """
import json, shutil, sys
from pathlib import Path
here, words = Path(__file__).parent, sys.argv[1:]
out = Path(words[words.index("--out") + 1])
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(words) + chr(10))
status = json.loads((here / "ends.json").read_text()).get(out.name, 0)
if words[0] == "tokenizer":
    out.mkdir()
    (out / "tokenizer.json").write_text("{}")
else:
    shutil.copytree(here / ("stopped" if status else "done"), out, dirs_exist_ok=True)
sys.exit(status)
"""


@pytest.fixture
def scaling(tmp_path: Path) -> ModuleType:
    """The benchmark, with the stub in the place of riyaz."""
    module = load_script("benchmarks/scaling.py")
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "ends.json").write_text("{}")
    for status in ("done", "stopped"):
        fake_run.write(tmp_path / status, fake_run.run(status=status), fake_run.metrics(120))
    module.RIYAZ = [sys.executable, "-I", "-S", str(tmp_path / "stub.py")]  # type: ignore[attr-defined]
    return module


def asked(tmp_path: Path, **other: object) -> argparse.Namespace:
    settings = {"text": [tmp_path / "text"], "budget": Seconds("16m"), "out": tmp_path / "runs", "vocab": 4096,
                "context": 256, "seed": 0}  # fmt: skip
    return argparse.Namespace(**(settings | other))


def calls(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "calls.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return found


def test_four_sizes_at_one_budget_and_one_size_at_four(scaling: ModuleType):
    found = scaling.runs(Seconds("16m"))
    assert list(found) == ["5m-2m", "5m-4m", "5m-8m", "1m-16m", "5m-16m", "15m-16m", "50m-16m"]
    assert found["5m-2m"] == ("5m", 120) and found["50m-16m"] == ("50m", 960)


def test_a_finished_run_is_never_done_twice_and_a_stopped_one_goes_on(scaling: ModuleType, tmp_path: Path):
    (tmp_path / "ends.json").write_text('{"5m-8m": 2, "15m-16m": 130}')
    with pytest.raises(SystemExit) as stopped:
        scaling.measure(asked(tmp_path))
    assert stopped.value.code == 130, "Ctrl-C in a run ends it all"
    first = calls(tmp_path)
    assert [words[0] for words in first] == ["tokenizer", *["pretrain"] * 6]
    assert not any("--resume" in words for words in first)
    words = " ".join(first[1])
    assert (
        f"--size 5m --budget 2m --tokenizer {tmp_path / 'runs/tokenizer'} --context 256 --dropout 0 --seed 0" in words
    )

    (tmp_path / "ends.json").write_text("{}")
    assert scaling.measure(asked(tmp_path)) == []
    again = [(Path(words[words.index("--out") + 1]).name, "--resume" in words) for words in calls(tmp_path)]
    assert again == [("5m-8m", True), ("15m-16m", True), ("50m-16m", False)]
    assert scaling.measure(asked(tmp_path)) == [] and not (tmp_path / "calls.jsonl").exists()
    with pytest.raises(SystemExit, match="another text, vocabulary, context or seed"):
        scaling.measure(asked(tmp_path, vocab=2048))


def test_data_picture_and_table_say_what_the_runs_say(scaling: ModuleType, tmp_path: Path):
    (tmp_path / "ends.json").write_text('{"50m-16m": 2}')
    assert scaling.measure(asked(tmp_path)) == ["50m-16m"], "the others are measured all the same"
    document = scaling.collect(asked(tmp_path))
    assert [run["name"] for run in document["runs"]] == list(scaling.runs(Seconds("16m")))[:-1]
    json.dumps(document, allow_nan=False)
    run = document["runs"][0]
    result = fake_run.run()["result"]["bits_per_byte"]
    assert (run["bits_per_byte"], run["flops"], run["parameters"]) == (result, 3.3e14, 5_246_208)
    assert [flops for flops, _ in run["curve"]] == pytest.approx([3.3e14 / 2, 3.3e14])

    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{scaling.BEGIN}\nold\n{scaling.END}\nAfter.\n")
    scaling.publish(document, tmp_path, page)
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "old" not in text
    assert text.count("| 5m |") == 4 and f"| {result:.3f} |" in text and "3.3 × 10¹⁴" in text
    root = ET.parse(tmp_path / "scaling.svg").getroot()
    said = "".join(root.itertext())
    for run in document["runs"]:
        assert scaling.said(run) in said
    assert "prefers-color-scheme: dark" in said and root.attrib["width"] == "760"
    scaling.publish(None, tmp_path, page)
    assert "Not measured yet." in page.read_text() and "Not measured yet" in (tmp_path / "scaling.svg").read_text()


def test_the_sentence_below_the_table_orders_sizes_and_tells_gains(scaling: ModuleType):
    ends = [("1m", 8, 1.7, 9e6), ("5m", 8, 1.6, 4e6), ("5m", 4, 1.8, 2e6), ("5m", 2, 2.1, 1e6)]
    measured = [{"size": size, "budget": 60 * minutes, "bits_per_byte": bits, "tokens": tokens}
                for size, minutes, bits, tokens in ends]  # fmt: skip
    assert scaling.sentence(measured) == (
        "Of the runs of 8 min size 5m ends lowest, before 1m (+0.100). From each budget to the next 5m read 2.0, 2.0 "
        "times as much: -0.300, -0.200 bits per byte."
    )
    assert scaling.sentence(measured[:1]) == "Of the runs of 8 min size 1m ends lowest."
