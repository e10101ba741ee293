"""benchmarks/cost_curves.py: every panel is measured with a tiny model, written and drawn."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_llama
from load_script import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return load_script("benchmarks/cost_curves.py")


def test_panels_are_measured_and_drawn(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_llama.write_gguf(tmp_path / "tiny.gguf", context=256)
    small = {"PROMPTS": (8, 16), "BEFORE": (8, 40), "ANSWERS": (1, 2), "WIDTHS": (256,), "ROWS": (8, 16), "TOKENS": 4}
    for name, value in small.items():
        monkeypatch.setattr(script, name, value)
    only = [word for panel in ("context", "answers", "width", "training") for word in ("--only", panel)]
    words = ["cost_curves.py", "--model", str(model), "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, *only])
    script.main()
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    curves = document["curves"]
    assert [size for size, _ in curves["answers"][""]] == [1, 2] and [s for s, _ in curves["training"][""]] == [8, 16]
    assert all(cost > 0 for lines in curves.values() for line in lines.values() for _, cost in line)
    picture = (tmp_path / "costs.svg").read_text(encoding="utf-8")
    assert all(title in picture for title, _ in script.PANELS.values())


def test_the_committed_picture_is_drawn_from_the_committed_figures(script: ModuleType) -> None:
    document = json.loads((script.PICTURES / "costs.json").read_text(encoding="utf-8"))
    assert document["curves"].keys() == script.PANELS.keys()
    assert script.svg(document["curves"]) == (script.PICTURES / "costs.svg").read_text(encoding="utf-8")
