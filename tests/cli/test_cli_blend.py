"""`riyaz blend`: the sum of two tiny LoRAs is an artifact that every command takes, says what it is made of, and what
cannot be summed is refused in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from test_blend import ROUNDING, TRUE, dense, dense_sum, random_pairs, size_of_terms
from tiny_comparison import Told, command

from riyaz import adapters, artifact
from riyaz.adapters import Adapter, Pair, peft
from riyaz.adapters.base_shapes import shapes_of
from riyaz.artifact import LABELS, TRAINED, Artifact, BaseModel, TextPart, WeightsPart
from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.engine.parts import finished
from riyaz.families import describe
from riyaz.files import new_sha256
from riyaz.predictor import LabelHead, open_base, open_on, open_target
from riyaz.serve.opening import Opener
from riyaz.sources import open_source, safetensors

LABELLED = Task("closed", ("delivery", "other", "refund"), "accuracy", "Name the topic.", "")
FREE = Task("free", (), "rouge_l", "Say it.", "")
QUESTIONS = ("where is my refund?", "has my parcel left?", "a bicycle!", "the order did not arrive", "play some music")
NO_TEMPERATURE = "note: no temperature is fitted to a blend, so its confidences are not calibrated"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("riyaz.hardware.cores", lambda: 1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def lora_artifact(
    base: Path, folder: str, seed: int, *, rank: int = 4, alpha: float = 8.0, linears: str = "", whole: bool = False,
    **parts: Any,
) -> Path:  # fmt: skip
    """An artifact with a seeded LoRA on the linears whose path holds `linears`; with `head` among the parts of its
    document it has a seeded head of labels."""
    source = open_source(base)
    family, work = describe(source), Path("../files") / folder
    work.mkdir(parents=True)
    shapes = {
        path: shape for path, shape in shapes_of(family).linears.items() if linears in path and "head" not in path
    }
    replaced = {"model.norm.weight": np.ones(64, np.float32)} if whole else {}
    peft.write(Adapter(random_pairs(seed, rank, alpha, shapes), replaced), work, family, base=source.name)
    head = parts.pop("head", False)
    if head:
        generator = np.random.default_rng(seed)
        LabelHead(generator.normal(size=(parts["task"].choices, 64)).astype(np.float32)).write(work / LABELS)
    files: dict[str, Path | bytes] = {path.name: path for path in work.iterdir()}
    files[TRAINED] = f"{seed:016x}\n".encode()
    document = Artifact(
        method="by hand", text=TextPart("Answer with one word."), weights=WeightsPart("lora", label_head=head),
        base=BaseModel(source.name, str(base), source.sha256(), 1), max_new_tokens=8,
    )  # fmt: skip
    artifact.write(Path(folder), replace(document, **parts), files)
    return Path(folder)


def blended(*arguments: object) -> Told:
    told = command("blend", *arguments, "--json")
    assert told.status == 0, told.err
    return told


def pairs_of(folder: Path, base: Path) -> dict[str, Pair]:
    return dict(adapters.read(folder, describe(open_source(base))).pairs)


def answers(folder: Path | str) -> list[str]:
    predictor = open_target(folder, precision="fp32")
    return [each.text for each in predictor.answers([[{"role": "user", "content": text}] for text in QUESTIONS])]


def test_the_artifact_holds_the_exact_sum_and_what_it_is_made_of(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2, rank=3, alpha=5.0, linears="q_proj")
    told = blended(one, two, "--weights", "0.7,0.3", "--out", "out")
    parts, weights, made = [pairs_of(one, base), pairs_of(two, base)], (0.7, 0.3), pairs_of(Path("out"), base)
    assert made.keys() == parts[0].keys() and {pair.rank for pair in made.values()} == {4, 7}
    for path, pair in made.items():
        apart = np.abs(dense(pair) - dense_sum(parts, weights, path)).max()
        assert apart <= 1.01 * ROUNDING * size_of_terms(parts, weights, path), path  # α / r may round once more
    document = Artifact.read(Path("out"))
    assert (document.method, document.weights.kind, document.max_new_tokens) == ("blend", "lora", 8)
    assert document.text == TextPart("Answer with one word.") and document.base == Artifact.read(one).base
    assert document.config["artifacts"] == [
        {
            "artifact": folder.name, "weight": weight, "method": "by hand",
            "sha256": new_sha256((folder / "riyaz.json").read_bytes()).hexdigest(),
            "adapter_sha256": Artifact.read(folder).checksums["adapter_model.safetensors"],
        }
        for folder, weight in zip((one, two), weights)
    ]  # fmt: skip
    assert document.config["chosen"] == {"sum": "0.7 × one + 0.3 × two", "rank": 7, "exact": True}
    assert (Path("out") / TRAINED).read_text() == f"{1:016x}\n{2:016x}\n", "rows of both"
    assert told.document | {"mb": 0} == {
        "path": "out", "artifacts": ["one", "two"], "weights": [0.7, 0.3], "layers": 14, "rank": 7, "rank_limit": None,
        "error": 0, "worst_error": 0, "worst_layer": "", "mb": 0, "notes": [],
    }  # fmt: skip
    assert told.err.startswith("out: 0.7 × one + 0.3 × two; rank 7 on 14 layers, 0.")
    assert told.err.endswith("MB; the sum is exact\n") and "note" not in told.err


def test_with_the_weights_1_and_0_it_answers_as_the_first(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1, alpha=7.0), lora_artifact(base, "two", 2)
    blended(one, two, "--weights", "1,0", "--out", "first")
    blended(one, two, "--weights", "0,1", "--out", "second")
    assert answers("first") == answers(one) != answers(two) == answers("second")
    blended(one, two, "--out", "half")
    assert answers("half") not in (answers(one), answers(two))


def test_every_command_takes_a_blend(base: Path) -> None:
    one = lora_artifact(base, "one", 1, task=LABELLED, temperature=1.5, calibrated=True)
    two = lora_artifact(base, "two", 2, task=LABELLED, temperature=0.7)
    three = lora_artifact(base, "three", 3, task=LABELLED, temperature=0.7, calibrated=True)
    told = blended(one, two, three, "--out", "out")
    assert told.document["weights"] == [1 / 3] * 3 and told.document["rank"] == 12
    null = "note: labels are not corrected by a null prompt, because not every artifact corrects them"
    assert told.err.splitlines()[:-1] == [NO_TEMPERATURE, null]
    document = Artifact.read(Path("out"))
    assert document.temperature is None and not document.calibrated and document.task == LABELLED
    blended(one, three, "--out", "both")
    assert Artifact.read(Path("both")).calibrated
    rows = [{"text": text, "label": label} for text, label in zip(QUESTIONS, (*LABELLED.labels, *LABELLED.labels))]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for line in (
        "run out rows.jsonl --out answers.jsonl", "evaluate out --test rows.jsonl", "generate out hello",
        "export out --format peft --out peft", "export out --format hf --out hf", "merge out --out merged",
        "card out --out CARD.md", "predict hello --adapter out", "info", "blend out one --out again",
    ):  # fmt: skip
        told = command(*line.split())
        assert told.status == 0, told.err
    written = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in written] == answers("out")
    assert not [name for name in written[0] if "confidence" in name], "no temperature, so no confidence"
    card = Path("CARD.md").read_text()
    assert "Method: blend" in card and "0.333333 × one + 0.333333 × two" in card
    opener = Opener("fp32")
    assert opener.serve("out") == []
    served = opener.shelf.find("out").predictor
    conversations = [[{"role": "user", "content": text}] for text in QUESTIONS]
    assert [each.text for each in served.answers(conversations)] == answers("out")


def test_it_answers_beside_other_artifacts_on_one_open_model(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    blended(one, two, "--out", "out")
    opened = open_base(base, "fp32")
    predictor, adapter = open_on(opened, "out", "sum")
    assert adapter is not None
    opened.lm.load("sum", adapter)
    conversations = [[{"role": "user", "content": text}] for text in QUESTIONS]
    assert [each.text for each in predictor.answers(conversations)] == answers("out")


def test_heads_of_labels_are_summed_with_the_same_weights(base: Path) -> None:
    one = lora_artifact(base, "one", 1, task=LABELLED, temperature=1.5, head=True)
    two = lora_artifact(base, "two", 2, task=LABELLED, temperature=0.7, head=True)
    told = blended(one, two, "--weights=-0.25,1.5", "--out", "out")
    assert told.document["notes"] == ["the weights sum to 1.25, not to 1", NO_TEMPERATURE.removeprefix("note: ")]
    heads = [safetensors.read(folder / LABELS).array("weight").astype(np.float64) for folder in (one, two)]
    made = safetensors.read(Path("out") / LABELS).array("weight")
    assert np.array_equal(made, (-0.25 * heads[0] + 1.5 * heads[1]).astype(np.float32))
    assert Artifact.read(Path("out")).weights == WeightsPart("lora", label_head=True)
    blended(one, two, "--weights", "1,0", "--out", "first")
    assert answers("first") == answers(one)
    predictor = open_target("first", precision="fp32")
    conversations = [[{"role": "user", "content": text}] for text in QUESTIONS]
    prepared = predictor.prepare(conversations)
    hidden = finished(predictor.lm.hidden_states([each.request for each in prepared]))
    plain = LabelHead(heads[0].astype(np.float32)).log_probabilities(hidden)
    said = np.array([each.probabilities for each in predictor.answers(conversations)])
    assert np.abs(said - np.exp(plain)).max() < 1e-6, "at no temperature"
    assert command("export", "out", "--format", "peft", "--out", "peft").status == 0
    readme = Path("peft/README.md").read_text()
    assert "not calibrated" in readme and "fitted on validation rows" not in readme
    assert command("export", one, "--format", "peft", "--out", "one-peft").status == 0
    assert "scores / 1.5, 0)  # at the temperature fitted on" in Path("one-peft/README.md").read_text()


def test_a_rank_reduces_every_layer_and_says_what_that_costs(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2, rank=3, linears="layers.0")
    told = blended(one, two, "--rank", "2", "--out", "out")
    parts, made = [pairs_of(one, base), pairs_of(two, base)], pairs_of(Path("out"), base)
    assert {pair.rank for pair in made.values()} == {2}
    sums = {path: dense_sum(parts, (0.5, 0.5), path) for path in made}
    norms = {path: np.linalg.norm(total) for path, total in sums.items()}
    losses = {path: np.linalg.norm(sums[path] - dense(pair)) for path, pair in made.items()}
    overall = np.linalg.norm(list(losses.values())) / np.linalg.norm(list(norms.values()))
    document, worst = told.document, told.document["worst_layer"]
    assert document["rank"] == document["rank_limit"] == 2
    assert abs(document["error"] - overall) < TRUE
    assert abs(document["worst_error"] - losses[worst] / norms[worst]) < TRUE
    assert document["worst_error"] == pytest.approx(max(losses[path] / norms[path] for path in made), rel=TRUE)
    shown = f"relative error of the reduction {overall:.2g}, {document['worst_error']:.2g} in {worst}\n"
    assert told.err.endswith(shown)
    known = Artifact.read(Path("out")).config["chosen"]
    assert known == {
        "sum": "0.5 × one + 0.5 × two", "rank": 2, "exact": False, "error": document["error"],
        "worst_error": document["worst_error"], "worst_layer": worst,
    }  # fmt: skip
    told = blended(one, two, "--rank", "50", "--out", "whole")
    assert (told.document["rank"], told.document["error"], told.document["worst_layer"]) == (7, 0, "")
    assert told.err.endswith("relative error of the reduction 0\n")


def test_what_lies_beside_the_first_artifact_goes_along(base: Path) -> None:
    example = b'{"messages": [{"role": "user", "content": "a fox?"}, {"role": "assistant", "content": "yes"}]}\n'
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    document = replace(
        Artifact.read(one), text=TextPart("Answer.", examples="fixed", k=1), data={"train": "a", "test": "b"},
        config={"reading": {"columns": {}}, "chosen": {"rank": 4}},
    )  # fmt: skip
    files: dict[str, Path | bytes] = {name: (one / name).read_bytes() for name in Artifact.read(one).checksums}
    artifact.write(one, document, files | {artifact.EXAMPLES: example})
    artifact.write(two, replace(Artifact.read(two), data={"train": "c", "test": "b"}),
                   {name: (two / name).read_bytes() for name in Artifact.read(two).checksums})  # fmt: skip
    told = blended(one, two, "--out", "out")
    assert told.document["notes"] == ["the prompt is that of one; trained with another: two"]
    known = Artifact.read(Path("out"))
    assert known.text == document.text and (Path("out") / artifact.EXAMPLES).read_bytes() == example
    assert known.data == {"test": "b"} and known.config["reading"] == {"columns": {}}


def test_an_arm_of_a_comparison_is_named_as_for_merge(base: Path) -> None:
    lora_artifact(base, "one", 1)
    for method in ("lora", "rag_lora"):
        lora_artifact(base, f"results/arms/{method}/kept/artifact", len(method))
    told = blended("results/lora", "results/rag_lora", "one", "--out", "deep/out")
    assert told.document["artifacts"] == ["results/lora", "results/rag_lora", "one"]


def test_small_weights_keep_their_base_beside_them(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    for folder in (one, two):
        told = command("quantize", folder, "--precision", "int8", "--out", f"{folder}-int8")
        assert told.status == 0, told.err
    told = command("blend", "one-int8", "two", "--out", "out")
    assert told.status == 2 and "blend artifacts of one base" in told.line
    blended("one-int8", "two-int8", "--out", "out")
    assert (Path("out") / artifact.BASE_FILE).is_file() and answers("out")


# what is refused

NEEDED = {
    "none": set(), "full": {"model.safetensors", "config.json"}, "copy": {artifact.EXAMPLES},
    "soft_prompt": {"adapter_config.json", "adapter_model.safetensors"},
    "linear": {artifact.CLASSIFIER, artifact.CLASSIFIER_WEIGHTS},
}  # fmt: skip


def refused(*arguments: object) -> str:
    """The line of a refusal, which leaves the folder as it was."""
    before = sorted(Path().rglob("*"))
    told = command("blend", *arguments, *(() if "--out" in arguments else ("--out", "out")))
    assert told.status == 2 and told.out == "" and told.err.count("\n") == 1, told
    assert sorted(Path().rglob("*")) == before
    return told.line


@pytest.mark.parametrize("kind", NEEDED)
def test_weights_that_are_no_lora(base: Path, kind: str) -> None:
    one = lora_artifact(base, "one", 1)
    document = replace(Artifact.read(one), weights=WeightsPart(kind), task=LABELLED)
    artifact.write(Path("other"), document, dict.fromkeys(NEEDED[kind], b"{}"))
    assert refused(one, "other") == f"error: other: its weights are '{kind}', no LoRA; only LoRAs are blended"
    assert refused("other", one).startswith("error: other: its weights are")


def test_a_classifier_beside_the_lora(base: Path) -> None:
    one = lora_artifact(base, "one", 1, task=LABELLED, head=True)
    files: dict[str, Path | bytes] = {name: one / name for name in Artifact.read(one).checksums}
    files |= dict.fromkeys(NEEDED["linear"], b"{}")
    weights = WeightsPart("lora", label_head=True, beside="linear", factor=0.5)
    artifact.write(Path("two"), replace(Artifact.read(one), weights=weights), files)
    line = refused(one, "two")
    assert line.startswith("error: two: its answers are those of a LoRA and of linear together") and "alone" in line


def test_another_base(base: Path, tmp_path: Path) -> None:
    one = lora_artifact(base, "one", 1)
    two = lora_artifact(tiny_llama.write_hf_folder(tmp_path / "other-base", seed=5), "two", 2)
    hashes = [Artifact.read(folder).base.sha256[:12] for folder in (two, one)]  # type: ignore[union-attr]
    assert refused(one, two) == (
        f"error: two: was trained on other-base ({hashes[0]}), and one on tiny-base ({hashes[1]}); "
        "blend artifacts of one base"
    )


def question(*choices: str) -> Task:
    asks = Question("team", "choice", "Who answers?", tuple(map(Choice, choices)), "team")
    return Task("questions", (), "decisions", "Who?", "", (asks,))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"task": LABELLED}, {"task": FREE}, "answers with free text, and one with a closed set of labels"),
        ({}, {"task": FREE}, "answers with free text, and one with text of no stated task"),
        ({"task": LABELLED}, {"task": replace(LABELLED, labels=("delivery", "else", "refund"))},
         "has other labels than one (else, other)"),
        ({"task": question("a", "b")}, {"task": question("b", "a")}, "answers other questions than one"),
        ({"task": LABELLED, "head": True}, {"task": LABELLED}, "one scores its labels by a head, and two has none"),
        ({"task": LABELLED}, {"task": LABELLED, "head": True}, "two scores its labels by a head, and one has none"),
    ],
)  # fmt: skip
def test_another_task(base: Path, first: dict[str, Any], second: dict[str, Any], words: str) -> None:
    one, two = lora_artifact(base, "one", 1, **first), lora_artifact(base, "two", 2, **second)
    assert refused(one, two) == f"error: two: {words}; blend artifacts of one task"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--weights", "1"), "--weights: 1 weight for 2 artifacts; give one number for each, such as 0.5,0.5"),
        (("--weights", "0.3,0.3,0.4"), "--weights: 3 weights for 2 artifacts; give one number for each"),
        (("--weights", "0.5,half"), "--weights: 'half' is not a number; such as 0.7,0.3"),
        (("--weights", "0.5,"), "--weights: '' is not a number"),
        (("--weights", "0.5,nan"), "--weights: a weight is not a finite number"),
        (("--weights", "inf,1"), "--weights: a weight is not a finite number"),
        (("--weights", "0,0"), "--weights: all weights are 0"),
        (("--weights", "1e300,1"), "--weights: with these weights an adapter would have an alpha of 1.6e+301"),
        (("--weights", "-1e308,1"), "--weights: with these weights an adapter would have an alpha of inf"),
        (("--rank", "0"), "--rank: 0 is too small; give at least 1"),
    ],
)
def test_numbers_that_cannot_be_used(base: Path, flags: tuple[str, ...], line: str) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    assert refused(one, two, *flags).startswith(f"error: {line}")


@pytest.mark.parametrize("weights", ["-0.5,1.5", "0.5,0.6", "-1,-1", "100,1"])
def test_numbers_that_can_be_used_although_few_would(base: Path, weights: str) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    told, total = blended(one, two, "--weights", weights, "--out", "out"), sum(map(float, weights.split(",")))
    assert told.document["notes"] == ([] if total == 1 else [f"the weights sum to {total:g}, not to 1"])
    made, parts = pairs_of(Path("out"), base), [pairs_of(folder, base) for folder in (one, two)]
    shares = [float(text) for text in weights.split(",")]
    for path, pair in made.items():
        apart = np.abs(dense(pair) - dense_sum(parts, shares, path)).max()
        assert apart <= 1.01 * ROUNDING * size_of_terms(parts, shares, path), path


def test_fewer_than_two(base: Path) -> None:
    assert refused(lora_artifact(base, "one", 1)).startswith("error: one: a blend needs at least two artifacts")
    assert refused().startswith("error: riyaz blend: a blend needs at least two artifacts")


def test_modules_that_were_trained_whole(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2, whole=True)
    assert refused(one, two).startswith("error: two: its adapter trained model.norm whole, and only pairs of matrices")


def test_what_is_no_artifact(base: Path) -> None:
    one = lora_artifact(base, "one", 1)
    assert refused(one, base).startswith(f"error: {base}: the folder holds no riyaz.json")
    (one / "adapter_model.safetensors").write_bytes(b"changed")
    assert "the checksum does not match the file" in refused(lora_artifact(base, "two", 2), one)


def test_a_folder_that_holds_something_is_not_written_over(base: Path) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    before = {path: path.read_bytes() for path in two.iterdir()}
    assert refused(one, two, "--out", two) == "error: two: already exists; choose another --out or remove it"
    assert {path: path.read_bytes() for path in two.iterdir()} == before
    Path("empty").mkdir()
    blended(one, two, "--out", "empty")
    assert Artifact.read(Path("empty")).method == "blend"


def full_disk(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["riyaz.artifact.sync_folder", "riyaz.adapters.folder.write_json"])
def test_a_full_disk_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    one, two = lora_artifact(base, "one", 1), lora_artifact(base, "two", 2)
    failing: Callable[..., None] = lambda *arguments, **options: full_disk()  # noqa: E731
    monkeypatch.setattr(function, failing)
    assert "the disk is full" in refused(one, two)
