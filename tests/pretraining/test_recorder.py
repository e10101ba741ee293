"""What a pretraining run records of itself: its numbers beside transformers', the same training without it, a bound."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_comparison
import torch
from tiny_pretraining import Stopped, lines, quick_machine, small, stop_at, texts
from transformers import AutoModelForCausalLM

from riyaz.engine.torch import recorder as module
from riyaz.engine.torch.recorder import Recorder, Watched, layer_norms
from riyaz.layers.fast.masters import Masters
from riyaz.models import load
from riyaz.results import LEARNED, METRICS
from riyaz.sources import open_source
from riyaz.text.tokenizer import Tokenizer

STEPS, EVERY = 12, 2


@pytest.fixture(scope="module", autouse=True)
def machine(one_core: pytest.MonkeyPatch) -> None:
    quick_machine(one_core)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts(tmp_path_factory.mktemp("text"))


WORDS = small("--steps", STEPS, "--validate-every", EVERY, "--checkpoint-every", 4, "--seed", 1)


def run(text: Path, out: Path, *more: object) -> Path:
    told = tiny_comparison.command("pretrain", text, "--out", out, *WORDS, *more)
    assert told.status == 0, told.err
    return out


@pytest.fixture(scope="module")
def done(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(text, tmp_path_factory.mktemp("done") / "run")


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_every_validation_has_a_line(done: Path) -> None:
    recorded = lines(done / LEARNED)
    assert [each["step"] for each in recorded] == [0, *range(EVERY, STEPS + 1, EVERY)]
    for each in recorded:
        assert len(each["lens"]) == 3 and all(len(row) == 3 for row in each["lens"])
        assert each["text"][0]["nats"] is None and all(one["nats"] > 0 for one in each["text"][1:])
        assert (each["gradients"] is None) == (each["step"] == 0) and each["sentence"] == "The quick brown fox"
    # the parts of the gradient have the length that the step reports
    norms = {each["step"]: each["norm"] for each in lines(done / METRICS)}
    for each in recorded[1:]:
        assert math.hypot(*each["gradients"]) == pytest.approx(norms[each["step"]], rel=2e-3)
    first, last = (np.mean([one["nats"] for one in each["text"][1:]]) for each in (recorded[0], recorded[-1]))
    assert last < first


def test_losses_and_lens_are_those_of_transformers(done: Path) -> None:
    best = min(lines(done / METRICS), key=lambda each: each.get("valid_loss", math.inf))["step"]  # what the folder has
    line = next(each for each in lines(done / LEARNED) if each["step"] == best)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(done).eval(), open_source(done).tokenizer()
    tokens, fox = (torch.tensor([tokenizer.encode("".join(texts))]) for texts in (
        [each["text"] for each in line["text"]], [line["sentence"]]
    ))  # fmt: skip
    with torch.no_grad():
        log_p = model(tokens).logits[0].log_softmax(1)
        behind = [state[0, -1] for state in model(fox, output_hidden_states=True).hidden_states]
        lens = model.lm_head(torch.stack([*map(model.model.norm, behind[:-1]), behind[-1]])).softmax(1)
    nats = -log_p[:-1].gather(1, tokens[0, 1:, None])[:, 0].numpy()
    assert nats == pytest.approx([each["nats"] for each in line["text"][1:]], rel=1e-3)
    for row, recorded in zip(lens, line["lens"], strict=True):
        likeliest = row.topk(3)
        assert [each["p"] for each in recorded] == pytest.approx(likeliest.values.tolist(), rel=1e-3)
        assert recorded[0]["text"] == tokenizer.token_text(int(likeliest.indices[0]))


def test_training_is_the_same_without_it(
    done: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "validated", lambda *_: None)
    monkeypatch.setattr(Recorder, "stepping", lambda *_: None)
    bare = run(text, tmp_path / "bare")
    assert not (bare / LEARNED).exists() and weights(bare) == weights(done)


@pytest.mark.parametrize("stop", [1, 5, 7, 11])
def test_a_resumed_run_records_the_same_bytes(
    done: Path, text: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(stop, patch, Stopped())
        assert tiny_comparison.command("pretrain", text, "--out", tmp_path / "run", *WORDS).status == 1
    before = lines(tmp_path / "run" / LEARNED)
    assert before[-1]["step"] <= stop
    run(text, tmp_path / "run", "--resume")
    assert (tmp_path / "run" / LEARNED).read_bytes() == (done / LEARNED).read_bytes()
    assert weights(tmp_path / "run") == weights(done)


def test_a_file_has_a_bound(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    recorded = lines(run(text, tmp_path / "run") / LEARNED)
    assert [each["step"] for each in recorded] == [0, 4, 8, 12]  # every second of six validations
    assert max(len(each["text"]) for each in recorded) <= module.TOKENS


def test_the_last_validation_of_any_length_has_a_line(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    out = tmp_path / "run"
    told = tiny_comparison.command("pretrain", text, "--out", out, *small("--steps", 11, "--validate-every", 2))
    assert told.status == 0, told.err
    recorded = lines(out / LEARNED)
    assert [each["step"] for each in recorded] == [0, 6, 11]  # every third of five, and the last one
    assert recorded[-1]["gradients"] is not None


def test_gradients_are_counted_by_layer(done: Path) -> None:
    model = load(open_source(done))
    masters = Masters(model, torch.float32)
    sums = masters.parts(masters.blocks.grad)
    for number, part in enumerate(sums.values()):
        part.fill_(number + 1)
    wanted = [0.0, 0.0, 0.0]
    for number, (name, part) in enumerate(sums.items()):
        place = int(name.split("layers.")[1][0]) + 1 if ".layers." in name else 0
        wanted[place] += part.numel() * (number + 1) ** 2
    assert layer_norms(masters, 2) == pytest.approx(np.sqrt(wanted), rel=1e-6)
    masters.detach()


def test_a_sentence_that_cannot_be_encoded_has_no_lens(done: Path, tmp_path: Path) -> None:
    source = open_source(done)
    tokenizer: Tokenizer = source.tokenizer()
    recorder = Recorder(tmp_path / LEARNED, load(source).eval(), tokenizer, Watched([5], []), 1, 1)
    recorder.validated(0)
    recorder.lines.close()
    (line,) = map(json.loads, (tmp_path / LEARNED).read_text().splitlines())
    assert line["lens"] == [] and line["sentence"] == "" and [each["nats"] for each in line["text"]] == [None]
