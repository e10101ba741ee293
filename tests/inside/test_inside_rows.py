"""Many rows looked into: wrong labels layer by layer, one layer off at a time, beside torch; and the command."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch
from native_models import lora_of
from refusals import assert_refused
from transformers import AutoModelForCausalLM

import riyaz
from riyaz import artifact as artifacts
from riyaz.adapters import Adapter, peft
from riyaz.artifact import Artifact, BaseModel, TextPart, WeightsPart
from riyaz.cli import main as cli
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.runner import TokenRun, Whole
from riyaz.events import quiet
from riyaz.families import describe
from riyaz.inside import wrong_answers as wrong_module
from riyaz.inside.beside import touched, weight_changes
from riyaz.inside.layers_off import EVERY, answer_rows, switched_off, variants
from riyaz.inside.wrong_answers import WrongAnswer, WrongAnswers, label_scores_behind, wrong_answers
from riyaz.predictor import ClosedPredictor, LabelHead, open_artifact, open_model
from riyaz.sources import open_source

NEAR = 2e-4  # nats between the engine in float32 and torch
LAYERS = 3
TASK = Task("closed", ("billing", "delivery", "refund", "delivery delay"), "accuracy", "Classify the text.", "")
ROWS = [
    {"text": text, "label": TASK.labels[number % 4]}
    for number, text in enumerate(("my card", "where is the order?", "help me", "the bill", "it is late", "money back"))
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("rows") / "model", seed=3, layers=LAYERS)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def written(folder: Path, base: Path, kind: str, head: bool = False, task: Task | None = TASK) -> Path:
    """An artifact of labels on a tiny model: with a LoRA or with none, with a head of labels or without."""
    source = open_source(base)
    files: dict[str, Path | bytes] = {}
    if kind == "lora":
        (folder / "made").mkdir(parents=True)
        peft.write(lora_of(base, 5, 4), folder / "made", describe(source), base=str(base))
        files = {path.name: path for path in (folder / "made").iterdir()}
    if head:
        weight = np.random.default_rng(2).normal(size=(4, 64)).astype(np.float32)
        LabelHead(weight).write(folder / "head.safetensors")
        files[artifacts.LABELS] = folder / "head.safetensors"
    of = BaseModel(source.name, str(base), source.sha256(), 1)
    made = Artifact(kind, TextPart(TASK.instruction), WeightsPart(kind, label_head=head), of, task, temperature=1.0)
    artifacts.write(folder / "artifact", made, files)
    return folder / "artifact"


@pytest.fixture(scope="module", params=["texts", "head"])
def artifact(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("artifact"), base, "lora", request.param == "head")


@pytest.fixture(scope="module")
def model(artifact: Path) -> ClosedPredictor:
    opened = open_artifact(artifact, precision="fp32")
    assert isinstance(opened, ClosedPredictor)
    return opened


def examples() -> list[Example]:
    return [
        Example(({"role": "user", "content": row["text"]},), (row["label"],), where=f"test.jsonl:{number}")
        for number, row in enumerate(ROWS, 1)
    ]


def torch_model(base: Path, adapter: Adapter, keep: Callable[[str], bool], layers: int = LAYERS) -> torch.nn.Module:
    """transformers' model of the first layers, with the LoRA's products added to the linears that `keep` names."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    for name, pair in adapter.pairs.items():
        if keep(name):
            model.get_submodule(name).weight.data += pair.scale * torch.from_numpy(pair.b @ pair.a)
    model.model.layers = model.model.layers[:layers]
    return model


@torch.no_grad()
def by_torch(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    """Log-probabilities (T, V) after every token."""
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.log_softmax(1).numpy()


def of_runner(model: ClosedPredictor, tokens: list[int], name: str | None) -> np.ndarray:
    sequence = model.lm.runner.open(name)
    (log_p,) = model.lm.runner.forward([TokenRun(sequence, tokens, Whole(np.arange(len(tokens))))])
    model.lm.runner.close(sequence)
    return log_p


def test_a_layer_that_is_off_computes_as_if_it_had_no_lora(model: ClosedPredictor, base: Path, artifact: Path) -> None:
    adapter, tokens = lora_of(base, 5, 4), [5, 9, 40, 7, 300, 12]
    off = variants(model, artifact, "artifact")
    assert [*off] == [1, 2, 3, EVERY]
    for layer, variant in off.items():
        part = "" if layer == EVERY else f"layers.{layer - 1}."
        wanted = by_torch(torch_model(base, adapter, lambda name, part=part: bool(part) and part not in name), tokens)
        model.lm.load("off", variant())
        try:
            assert np.abs(of_runner(model, tokens, "off") - wanted).max() < NEAR, layer
        finally:
            model.lm.unload("off")
    whole = by_torch(torch_model(base, adapter, lambda name: True), tokens)
    assert np.abs(of_runner(model, tokens, model.adapter) - whole).max() < NEAR


def test_a_layer_of_a_model_trained_whole_gets_the_weights_of_its_base(base: Path, tmp_path: Path) -> None:
    after = tiny_llama.write_hf_folder(tmp_path / "after", seed=8, layers=LAYERS)
    source = open_source(base)
    of = BaseModel(source.name, str(base), source.sha256(), 1)
    made = Artifact("full", TextPart(TASK.instruction), WeightsPart("full"), of, TASK)
    artifacts.write(tmp_path / "full", made, {path.name: path for path in after.iterdir()})
    model = open_artifact(tmp_path / "full", precision="fp32")
    assert isinstance(model, ClosedPredictor) and model.bare is not None
    off = variants(model, tmp_path / "full", "full")
    assert [*off] == [1, 2, 3]
    tokens = [5, 9, 40, 7, 300, 12]
    one, two = (torch_model(folder, Adapter(), bool) for folder in (base, after))
    two.model.layers[1] = one.model.layers[1]
    model.lm.load("off", off[2]())
    assert np.abs(of_runner(model, tokens, "off") - by_torch(two, tokens)).max() < NEAR


def test_labels_behind_a_layer_score_as_by_a_model_that_ends_there(model: ClosedPredictor, base: Path) -> None:
    adapter = lora_of(base, 5, 4)
    (prepared,) = model.prepare([examples()[0].messages], ["row"])
    prompt = [*prepared.request.prefix, *prepared.request.tokens]
    scores = label_scores_behind(model, prepared, range(4))
    assert scores.shape == (LAYERS + 1, 4)
    for layers in range(1, LAYERS + 1):
        short = torch_model(base, adapter, lambda name: True, layers) if layers else None
        assert short is not None
        if model.head is not None:
            with torch.no_grad():
                hidden = short.model(torch.tensor([prompt]), use_cache=False).last_hidden_state[0, -1].numpy()
            wanted = model.head.log_probabilities(hidden[None])[0]
        else:
            answers = [model.constraint.sequences[label] for label in range(4)]
            log_p = [by_torch(short, [*prompt, *answer[:-1]])[len(prompt) - 1 :] for answer in answers]
            wanted = np.array([rows[range(len(answer)), answer].sum() for rows, answer in zip(log_p, answers)])
        assert np.abs(scores[layers] - wanted).max() < 4 * NEAR, layers
    final = model.label_scores([examples()[0].messages])[0]
    best, second = np.argsort(-final)[:2]
    assert scores[-1, best] - scores[-1, second] == pytest.approx(final[best] - final[second], abs=4 * NEAR)


def test_what_is_added_to_the_last_scores_is_added_behind_each_layer(model: ClosedPredictor) -> None:
    plain = model.prepare([examples()[0].messages], ["row"])[0]
    shift = np.array([0.0, 1.0, -2.0, 0.5])
    if model.head is None:
        shifted = label_scores_behind(replace(model, label_offsets=tuple(shift)), plain, range(4))
    else:
        shifted = label_scores_behind(model, replace(plain, beside=shift), range(4))
    assert shifted - label_scores_behind(model, plain, range(4)) == pytest.approx(np.tile(shift, (LAYERS + 1, 1)))


def test_every_wrong_answer_ends_behind_the_given_label(model: ClosedPredictor) -> None:
    rows, told = examples(), []
    answered = answer_rows(model, TASK, rows)
    looked = wrong_answers(model, rows, answered.predictions, lambda *done: told.append(done))
    wrong = [(row.where, label.text) for row, label in zip(rows, answered.predictions) if label.text != row.answer]
    assert len(wrong) > 0 and [(each.where, each.chosen) for each in looked.each] == wrong
    assert looked.undecided == 0 and sum(looked.lost) == len(wrong) and told[-1] == (len(wrong), len(wrong))
    assert looked.ahead[-1] == 0 and all(each.margins[-1] < 0 for each in looked.each)


def answer(*margins: float) -> WrongAnswer:
    return WrongAnswer("row", "right", "chosen", np.array(margins))


def test_counts_by_layer() -> None:
    each = (answer(-1, -1, -1), answer(1, 1, -1), answer(1, -1, -2), answer(-1, 2, -1), answer(1, 1, 1))
    assert [one.lost for one in each] == [0, 2, 1, 2, None]
    assert [one.ahead for one in each] == [[], [0, 1], [0], [1], [0, 1, 2]]
    counted = WrongAnswers(2, each)
    assert (counted.ahead, counted.lost, counted.never, counted.undecided) == ([3, 3, 1], [1, 1, 2], 1, 1)


def test_rows_that_cannot_be_looked_at_are_counted(model: ClosedPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = replace(examples()[0], answers=("another label",))
    answered = answer_rows(model, TASK, [strange])
    assert wrong_answers(model, [strange], answered.predictions, lambda *_: None).unknown == 1
    rows = examples()
    answered = answer_rows(model, TASK, rows)
    monkeypatch.setattr(wrong_module, "TRACED", 8)
    with assert_refused("more than 8 tokens", "test.jsonl:", "shorter rows"):
        wrong_answers(model, rows, answered.predictions, lambda *_: None)


def test_layers_off_are_scored_on_the_same_rows(model: ClosedPredictor, artifact: Path) -> None:
    rows = examples()
    answered, events = answer_rows(model, TASK, rows), []
    off = variants(model, artifact, "artifact")
    measured = switched_off(model, TASK, rows, answered, off, events.append)
    again = switched_off(model, TASK, rows, answered, {2: off[2]}, quiet)
    assert again.layers[0] == measured.layers[1] and again.every is None
    name = "whole"
    model.lm.load(name, variants(model, artifact, "artifact")[2]())
    texts = [each.text for each in replace(model, adapter=name).answers([row.messages for row in rows])]
    model.lm.unload(name)
    assert measured.layers[1].score == np.mean([text == row.answer for text, row in zip(texts, rows)])
    for each in measured.layers:
        assert each.paired.difference == pytest.approx(each.score - answered.scores[0].mean)
        assert each.paired.low <= each.paired.difference <= each.paired.high and each.nats is not None
    assert measured.every is not None
    assert [event.seconds for event in events if hasattr(event, "peak_rss_mb")] == [4 * answered.seconds]


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = cli.main(["inside", *map(str, words)])
    out, error = capsys.readouterr()
    return status, out, error


def test_the_command_and_the_library_say_the_same(
    artifact: Path, rows_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (artifact, "--rows", rows_file, "--layers-off", "--precision", "fp32")
    status, out, error = command(capsys, *words, "--json")
    assert status == 0, error
    made = json.loads(out)
    assert made["rows"] == 6 and made["version"] == 1 and len(made["wrong"]["layers"]) == LAYERS + 1
    assert len(made["layers_off"]["layers"]) == LAYERS and made["layers_off"]["every"]["nats"]
    assert made["wrong"]["answers"] == len(made["wrong"]["each"]) == round(6 * (1 - made["score"]))
    same = riyaz.open(artifact, precision="fp32").inside_rows(rows_file, layers_off=True)
    assert (
        same.score == pytest.approx(made["score"], abs=1e-5) and same.wrong is not None and same.layers_off is not None
    )
    assert same.wrong.lost == [each["lost"] for each in made["wrong"]["layers"]]
    in_memory = riyaz.open(artifact, precision="fp32").inside_rows(ROWS, limit=4)
    assert in_memory.rows == 4 and in_memory.layers_off is None
    status, out, error = command(capsys, *words, "--limit", 3)
    assert status == 0 and "One layer off at a time, 3 rows" in out and "estimate:" in error, error
    assert "Wrong answers, layer by layer" in out and "needs other rows as its test" in " ".join(out.split())


def test_wrong_input_is_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows_file: Path
) -> None:
    plain = written(tmp_path / "plain", base, "none")
    lora = written(tmp_path / "lora", base, "lora")
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text('{"text": "my card"}\n{"text": "my bill"}\n')
    free = tmp_path / "free.jsonl"
    free.write_text("".join(json.dumps({"prompt": f"who {i}", "answer": f"one of {i} things {i} there"}) + "\n"
                            for i in range(8)))  # fmt: skip
    for words, parts in (
        ((plain, "--rows", rows_file, "--layers-off"), ("changes no weights", "--layers-off")),
        ((base, "--rows", free), ("nothing to show about rows", "--layers-off")),
        ((lora, "--rows", unlabelled), ("unlabelled.jsonl",)),
        ((lora, "--rows", tmp_path / "no.jsonl"), ("no.jsonl",)),
        ((lora, "--rows", rows_file, "--limit", 0), ("--limit",)),
        ((lora, "text", "--rows", rows_file), ("TEXT",)),
        ((lora, "--rows", rows_file, "--at", 0), ("--at", "--rows")),
        ((lora, "--rows", rows_file, "--codes"), ("--codes",)),
        ((lora,), ("TEXT", "--rows")),
        ((lora, "text", "--layers-off"), ("--layers-off", "--rows")),
        ((lora, "text", "--limit", 3), ("--limit", "--rows")),
        ((lora, "text", "--metric", "accuracy"), ("--metric", "--rows")),
    ):
        status, out, error = command(capsys, *words)
        last = error.strip().splitlines()[-1]
        assert status == 2 and not out and all(part in last for part in parts) and "Traceback" not in error, error


def test_a_head_of_labels_is_touched_too(model: ClosedPredictor, base: Path, artifact: Path) -> None:
    changed = list(weight_changes(open_model(base, "fp32"), model, str(artifact)))
    parts = touched(model, changed)
    assert parts.labels == (0 if model.head is None else 4) and parts.pairs == len(changed) == LAYERS * 7
