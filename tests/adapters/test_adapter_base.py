"""Which base an adapter stands on: the one that it names, found by path, by name or by its id on the hub; another one
of the same shapes is refused where that can be known, and said where it cannot."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_llama
from refusals import assert_refused
from test_export import adapter_files
from test_lora import change_config
from tiny_store import keep

from riyaz import export, predictor
from riyaz.cli import main as cli
from riyaz.engine.torch import load as torch_load
from riyaz.errors import shown
from riyaz.sources import open_source


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch_load.hardware, "cores", lambda: 1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama.write_hf_folder(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """A PEFT folder that names its base by path."""
    adapter_files(base, tmp_path / "adapter")
    change_config(tmp_path / "adapter", base_model_name_or_path=str(base))
    return tmp_path / "adapter"


def doubts(written: export.ExportResult) -> list[str]:
    """The notes on a base that could not be compared."""
    return [note for note in written.notes if "made for" in note]


def test_another_base_of_the_same_shapes_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=9)
    hashes = [open_source(folder).sha256()[:12] for folder in (base, other)]
    parts = (
        f"{shown(str(base))} ({hashes[0]})",
        f"{shown(str(other))} has other weights ({hashes[1]})",
        "leave --model out",
    )
    with assert_refused(str(adapter), *parts):
        export.export(str(adapter), "peft", tmp_path / "out", base=str(other))
    with assert_refused(str(adapter), *parts):
        predictor.open_target(adapter, base=str(other))
    assert not (tmp_path / "out").exists()
    export.export(str(adapter), "mlx", tmp_path / "mlx")  # which says its base in a file of its own
    parts = (f"{shown(str(tmp_path / 'mlx' / 'base'))} ({hashes[0]})", *parts[1:])  # it took the base along
    with assert_refused(str(tmp_path / "mlx"), *parts):
        export.export(str(tmp_path / "mlx"), "hf", tmp_path / "out", base=str(other))


def test_the_same_base_elsewhere_is_taken(base: Path, adapter: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(base, tmp_path / "moved")
    assert not doubts(export.export(str(adapter), "peft", tmp_path / "out", base=str(moved)))
    keep(base, "kept")
    assert not doubts(export.export(str(adapter), "peft", tmp_path / "out2", base="kept"))


def test_a_base_that_is_not_here_to_compare_is_said(base: Path, adapter: Path, tmp_path: Path, capsys) -> None:
    change_config(adapter, base_model_name_or_path="gone/llama")
    line = f"the adapter was made for 'gone/llama', which is not available to compare with '{base}'"
    assert cli.main(["export", str(adapter), "--format", "peft", "--out", "out", "--model", str(base), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["notes"][0] in err and f"note: {line}" in err
    assert cli.main(["predict", "The quick", "--adapter", str(adapter), "--model", str(base)]) == 0
    assert f"note: {line}" in capsys.readouterr().err
    change_config(adapter, base_model_name_or_path=None)
    assert not doubts(export.export(str(adapter), "peft", tmp_path / "out2", base=str(base)))


def test_an_id_of_the_hub_finds_the_model_that_was_pulled(base: Path, adapter: Path, tmp_path: Path) -> None:
    change_config(adapter, base_model_name_or_path="Owner/Llama")
    for open_it in (export.targets.open_target, predictor.open_target):
        with assert_refused("'Owner/Llama', cannot be opened", "`riyaz pull hf:Owner/Llama`"):
            open_it(str(adapter))
    keep(base, "owner--llama")
    assert export.targets.open_target(str(adapter)).source.name == "owner--llama"
    assert not doubts(export.export(str(adapter), "peft", tmp_path / "out"))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "Owner/Llama", "as other tools find it"
    other = tiny_llama.write_hf_folder(tmp_path / "other", seed=9)
    with assert_refused("was made for 'Owner/Llama'"):
        export.targets.open_target(str(adapter), str(other))
    shutil.copytree(other, tmp_path / "Owner" / "Llama")  # a path here comes first, as for other tools
    assert export.targets.open_target(str(adapter)).source.sha256() == open_source(other).sha256()
