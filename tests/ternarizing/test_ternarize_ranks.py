"""`torchrun … -m riyaz ternarize`: two processes make one ternary model."""

import json
from pathlib import Path

import pytest
import tiny_llama
from started_ranks import ended, start_ranks
from tiny_pretraining import texts

from riyaz.data.rows import Row
from riyaz.ternarizing.material import Material, store_material, stored_material

LOSS = 0.02  # relative, in bf16 after five steps: rows are packed otherwise


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("ternarize")
    base = tiny_llama.write_hf_folder(folder / "base", seed=3, context=64)
    (folder / "text").mkdir()
    return ["-m", "riyaz", "ternarize", base, texts(folder / "text"), "--steps", 5, "--json"]


@pytest.mark.slow
def test_two_processes_make_one_model(command: list[object], tmp_path: Path) -> None:
    """They search the learning rate together too."""
    first, second = ended(start_ranks(2, [*command, "--out", tmp_path / "two"]))
    assert (first.status, second.status) == (0, 0), (first.err, second.err)
    assert second.out == second.err == "" and not (tmp_path / "two/work").exists()
    (alone,) = ended(start_ranks(1, [*command, "--out", tmp_path / "one"]))
    assert alone.status == 0, alone.err
    two, one = (json.loads(process.out.splitlines()[-1]) for process in (first, alone))
    assert two == json.loads((tmp_path / "two/ternarize.json").read_text()) and two["status"] == "done"
    for name in ("sha256", "text_sha256", "loss_before", "loss_rounded", "rate", "tokens"):
        assert two[name] == one[name], name
    assert two["loss"] == pytest.approx(one["loss"], rel=LOSS)


def test_rows_are_stored_for_other_processes(tmp_path: Path) -> None:
    rows = [Row((1, 2), (3,)), Row((4,), (5, 6, 7)), Row((8, 9, 10), (11,))]
    store_material(Material(rows[:2], rows[2:], "hash"), tmp_path / "rows.safetensors")
    stored = stored_material(tmp_path / "rows.safetensors")
    assert (stored.train, stored.valid) == (rows[:2], rows[2:])
