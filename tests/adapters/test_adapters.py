"""Adapters in numpy: one LoRA written for three tools and read again without torch, its order and its base's shapes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import tiny_llama
import tiny_window_families
from house_rules import ROOT
from refusals import assert_refused
from torch import nn

from riyaz import adapters, models
from riyaz.adapters import Adapter, Pair
from riyaz.adapters.base_shapes import shapes_of
from riyaz.adapters.folder import open_weights
from riyaz.families import Family, ModelConfig, describe
from riyaz.sources import open_source

READ = """
import sys
from pathlib import Path
import numpy as np
from riyaz import adapters
from riyaz.families import describe
from riyaz.sources import open_source
family = describe(open_source(sys.argv[1]))
read = [adapters.read(Path(folder), family) for folder in sys.argv[2:4]]
read.append(adapters.gguf.read(Path(sys.argv[4]), family))
for adapter in read:
    assert list(adapter.pairs) == list(read[0].pairs) and not adapter.whole and adapter.soft_prompt is None
    for name, pair in adapter.pairs.items():
        first = read[0].pairs[name]
        assert pair.a.dtype == pair.b.dtype == np.float32
        assert np.array_equal(pair.a, first.a) and np.array_equal(pair.b, first.b) and pair.scale == first.scale
print(len(read[0].pairs), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("adapters") / "model")


@pytest.fixture
def family(folder: Path) -> Family[ModelConfig]:
    return describe(open_source(folder))


def even(family: Family[ModelConfig], rank: int = 4, scale: float = 2.0) -> Adapter:
    """A pair of one rank and scale on every linear but the head."""
    rng = np.random.default_rng(3)
    pairs = {
        name: Pair(rng.normal(size=(rank, wide)).astype("f4"), rng.normal(size=(out, rank)).astype("f4"), scale)
        for name, (out, wide) in shapes_of(family).linears.items()
        if name != "lm_head"
    }
    return Adapter(pairs)


def test_one_lora_in_the_files_of_three_tools_is_the_same_pairs_and_needs_no_torch(
    folder: Path, family: Family[ModelConfig], tmp_path: Path
) -> None:
    adapter = even(family)
    for name in ("peft", "mlx"):
        (tmp_path / name).mkdir()
    adapters.peft.write(adapter, tmp_path / "peft", family, base="tiny")
    adapters.mlx.write(adapter.pairs, tmp_path / "mlx", family, base="tiny")
    adapters.gguf.write(adapter.pairs, tmp_path / "adapter.gguf", family, name="tiny")
    for config in (tmp_path / "peft", tmp_path / "mlx"):
        assert adapters.base_of(config / adapters.CONFIG) == "tiny"
    again = adapters.read(tmp_path / "peft", family).pairs
    for name, pair in adapter.pairs.items():
        assert np.array_equal(again[name].a, pair.a) and np.array_equal(again[name].b, pair.b)
        assert again[name].scale == pair.scale
    command = [sys.executable, "-c", READ, folder, tmp_path / "peft", tmp_path / "mlx", tmp_path / "adapter.gguf"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(adapter.pairs)), "False"]


def test_pairs_come_in_the_order_of_the_bases_modules(family: Family[ModelConfig], tmp_path: Path) -> None:
    adapter = even(family)
    turned = Adapter(dict(reversed(adapter.pairs.items())))
    adapters.peft.write(turned, tmp_path, family, base="tiny")
    assert list(adapters.read(tmp_path, family).pairs) == list(adapter.pairs)


@pytest.mark.parametrize("case", [*tiny_families.FAMILIES, *tiny_window_families.KINDS])
def test_linears_are_those_of_the_torch_module_in_its_order(tmp_path: Path, case: str) -> None:
    if case in tiny_window_families.KINDS:
        tiny_window_families.theirs(case).save_pretrained(tmp_path / "model")
    else:
        tiny_families.make(tiny_families.FAMILIES[case], tmp_path / "model")
    source = open_source(tmp_path / "model")
    shapes, model = shapes_of(describe(source)), models.load(source)
    kinds: dict[type, list[str]] = {nn.Linear: [], nn.Embedding: []}
    for name, module in model.named_modules():
        for kind, names in kinds.items():
            if isinstance(module, kind):
                names.append(name)
    assert list(shapes.linears) == kinds[nn.Linear] and list(shapes.embeddings) == kinds[nn.Embedding]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert {name: tuple(tensor.shape) for name, tensor in parameters.items()} == dict(shapes.parameters)


def test_a_soft_prompt_is_written_and_read_in_numpy(family: Family[ModelConfig], tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(3, family.config.hidden_size)).astype("f4")
    adapters.peft_prompt.write(vectors, tmp_path, family, base="tiny")
    adapter = adapters.read(tmp_path, family)
    assert adapter.soft_prompt is not None and np.array_equal(adapter.soft_prompt, vectors)
    assert not adapter.pairs and not adapter.whole
    adapters.peft_prompt.write(vectors[:, :-1], tmp_path, family, base="tiny")
    with assert_refused(str(tmp_path), "the soft prompt does not fit the base"):
        adapters.read(tmp_path, family)


def test_a_whole_tensor_of_gpt2_is_turned_in_the_file(tmp_path: Path) -> None:
    tiny_families.make(tiny_families.FAMILIES["gpt2"], tmp_path / "model")
    family = describe(open_source(tmp_path / "model"))
    paths = ("transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_fc.bias")
    rng, shapes = np.random.default_rng(2), shapes_of(family).parameters
    whole = {path: rng.normal(size=shapes[path]).astype("f4") for path in paths}
    (tmp_path / "adapter").mkdir()
    adapters.peft.write(Adapter(whole=whole), tmp_path / "adapter", family, base="tiny")
    stored = open_weights(tmp_path / "adapter").tensors[f"{adapters.peft.PREFIX}{paths[0]}"].shape
    assert stored == whole[paths[0]].shape[::-1] and stored[0] != stored[1]
    again = adapters.read(tmp_path / "adapter", family).whole
    assert list(again) == list(whole) and all(np.array_equal(again[path], whole[path]) for path in whole)
