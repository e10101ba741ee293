"""The reader `folders` of fuzz_readers.py: one file of a small valid folder is changed, and the folder is opened by the
code that the commands use. The first byte of an input names the file."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

SETTINGS = """# the settings of a data folder
prompt_column = "text"
answer_column = "label"
test = "test.jsonl"
margin = 0.02
model = "./model"
budget = "20m"
methods = ["lora", "rag"]
learning_rate = 1e-4
epochs = 2
data_curve = true
"""


def folders_reader() -> tuple[list[bytes], Callable[[bytes], None]]:
    """The content of each file, and what is done with a changed one: written, its folder opened, the file restored."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-folders-"))
    opened = {**_models(root), **_artifact(root), **_comparison(root)}
    seeds = [bytes([place]) + path.read_bytes() for place, path in enumerate(opened)]

    def read(data: bytes) -> None:
        place = data[0] % len(opened) if data else 0
        path, work = list(opened.items())[place]
        path.write_bytes(data[1:])
        try:
            work()
        finally:
            path.write_bytes(seeds[place][1:])

    return seeds, read


def _models(root: Path) -> dict[Path, Callable[[], object]]:
    """The JSON files of a model's folder, of a LoRA, of a soft prompt and of an adapter of mlx-lm."""
    import tiny_llama

    from riyaz import adapters, families
    from riyaz.adapters import mlx, peft, peft_prompt
    from riyaz.adapters.adapter import Adapter, Pair
    from riyaz.predictor.own_sampling import own_sampling
    from riyaz.sources.source import open_path

    model = tiny_llama.write_hf_folder(root / "model")
    end = {"eos_token_id": [2, 0], "temperature": 0.7, "top_k": 50, "do_sample": True}
    (model / "generation_config.json").write_text(json.dumps(end))
    family = families.describe(open_path(model))
    generator = np.random.default_rng(0)
    shapes = {"q_proj": (64, 64), "v_proj": (32, 64)}
    pairs = {
        f"model.layers.{layer}.self_attn.{name}": Pair(
            generator.standard_normal((2, ins), np.float32), generator.standard_normal((outs, 2), np.float32), 2.0
        )
        for layer in range(2)
        for name, (outs, ins) in shapes.items()
    }
    for name in ("lora", "prompt", "mlx"):
        (root / name).mkdir()
    peft.write(Adapter(pairs=pairs), root / "lora", family, base="tiny")
    peft_prompt.write(generator.standard_normal((4, 64), np.float32), root / "prompt", family, base="tiny")
    mlx.write(pairs, root / "mlx", family, base="tiny")

    def as_model() -> None:
        source = open_path(model)
        families.describe(source)
        tokenizer = source.tokenizer()
        tokenizer.decode(tokenizer.encode("The café 日本"))
        own_sampling(tokenizer.files.generation)

    files = ("config.json", "tokenizer_config.json", "generation_config.json")
    opened: dict[Path, Callable[[], object]] = {model / name: as_model for name in files}
    for name in ("lora", "prompt", "mlx"):
        opened[root / name / "adapter_config.json"] = lambda name=name: adapters.read(root / name, family)
    return opened


def _artifact(root: Path) -> dict[Path, Callable[[], object]]:
    """riyaz.json of an artifact, and its examples."""
    from riyaz import artifact
    from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
    from riyaz.data import Example

    rows = [Example(({"role": "user", "content": "a fox?"},), ("yes",), where="t:1")]
    text = TextPart("Answer.", True, "fixed", 1, artifact.EXAMPLES)
    base = BaseModel("tiny", str(root / "model"), "0" * 64, 1)
    known = Artifact(
        "few_shot",
        text,
        WeightsPart(),
        base,
        config={"reading": {"columns": {"prompt": "text"}}},
        validation={"loss": 1},
    )
    folder = root / "artifact"
    artifact.write(folder, known, {artifact.EXAMPLES: artifact.examples_bytes(rows), artifact.TRAINED: b"01\n"})

    def as_artifact() -> None:
        Artifact.read(folder).source_name()
        artifact.reading_of(folder)
        artifact.count_trained(folder, rows)

    return {
        folder / artifact.NAME: as_artifact,
        folder / artifact.EXAMPLES: lambda: artifact.read_examples(folder / artifact.EXAMPLES),
    }


def _comparison(root: Path) -> dict[Path, Callable[[], object]]:
    """compare.json, plan.json and riyaz.toml."""
    import fake_comparison
    from rich.console import Console

    from riyaz import artifact, config
    from riyaz.comparison.plan import ComparisonPlan
    from riyaz.json_files import write_json
    from riyaz.methods.fitting.base import ArmPlan
    from riyaz.report.comparison import first_fold, markdown, terminal
    from riyaz.results import Comparison

    folder = root / "results"
    write_json(folder / "compare.json", fake_comparison.comparison())
    shutil.copytree(root / "artifact", folder / "arms/lora/kept/artifact")
    arms = (ArmPlan("nearest", {"fit": 1.0}), ArmPlan("lora", {"train": 9.5}, 40, 50, 8, (1e-4, 3e-4), 10, 10, 20))
    needs = {"seconds": 60.0, "peak_rss_mb": 900.0, "disk_mb": 10.0}
    write_json(folder / "plan.json", ComparisonPlan(0, 2, "float32", arms, 40, 8, 8, needs))
    (folder / "riyaz.toml").write_text(SETTINGS)

    def as_comparison() -> None:
        comparison = Comparison.read(folder / "compare.json")
        markdown.render(comparison)
        first_fold.head(comparison)
        terminal.print_comparison(comparison, Console(quiet=True))
        artifact.resolve(folder)

    def as_settings() -> None:
        settings = config.read_toml(folder / "riyaz.toml")
        config.resolve(settings, {"steps": 3})

    return {
        folder / "compare.json": as_comparison,
        folder / "plan.json": lambda: ComparisonPlan.read(folder / "plan.json").arm("lora"),
        folder / "riyaz.toml": as_settings,
    }
