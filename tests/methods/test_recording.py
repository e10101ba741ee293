"""What a fit records of its training: lines that cover every validation, numbers beside transformers', and the same
weights without it and after a kill."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import torch
from fit_context import PLAN, fit_context
from transformers import AutoModelForCausalLM

from riyaz.data import Example
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.engine.torch import recorder as module
from riyaz.engine.torch.recorder import Recorder, Watched
from riyaz.events import Event, Progress
from riyaz.methods import full, lora, prompt_tuning
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.methods.fitting.recording import watched
from riyaz.methods.fitting.weights import training_rows
from riyaz.results import LEARNED, Learned

pytestmark = pytest.mark.usefixtures("in_float32")
TRAINED = {"prompt_tuning": prompt_tuning, "lora": lora, "full": full}
TEXTS = Task("short", (), "exact_match", "Answer the question.", "")
STEPS = [0, 4, 8, 10]  # the opening's end, a validation, and the last one of a length that is no multiple


def text_rows(count: int, ending: str) -> tuple[Example, ...]:
    """Rows whose answers are texts."""
    return tuple(
        Example(({"role": "user", "content": f"{row['question']} {ending}"},), (row["answer"],), where=f"{ending}:{i}")
        for i, row in enumerate(tiny_comparison.short_rows(count), 1)
    )


@pytest.fixture
def closed(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path / "closed", arm=replace(PLAN, refit=True))


@pytest.fixture
def texts(model_folder: Path, tmp_path: Path) -> Context:
    rows = {"train": text_rows(24, "please"), "valid": text_rows(9, "today")}
    return fit_context(model_folder, tmp_path / "texts", task=TEXTS, prompt_text=instruction_only(TEXTS), **rows)


def fitted(method: str, context: Context, **changes: Any) -> Fitted:
    context.folder.mkdir(exist_ok=True)
    return TRAINED[method].fit(replace(context, **changes))


def first_valid(context: Context) -> Row:
    _, valid, _ = training_rows(context, 128)
    return valid[0]


def contents(fit: Fitted) -> dict[str, bytes]:
    return {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in fit.files.items()}


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("kind", ["closed", "texts"])
def test_every_validation_has_a_line(method: str, kind: str, request: pytest.FixtureRequest) -> None:
    context: Context = request.getfixturevalue(kind)
    fit = fitted(method, context)
    lines = Learned.read(context.folder / LEARNED)
    assert [line.step for line in lines] == STEPS
    row, tokenizer, layers = first_valid(context), context.tokenizer, 2
    prompt = [tokenizer.token_text(token) for token in row.prompt]
    for line in lines:
        assert line.answer is not None and len(line.text) <= module.TOKENS and len(line.lens) == layers + 1
        said = [each.text for each in line.text]
        assert said[: line.answer] == prompt[len(prompt) - line.answer :]
        assert "".join(prompt).endswith(line.sentence) and line.sentence
        if kind == "closed":
            assert said[line.answer :] == [context.valid[0].answer]
            assert {word.text for word in line.lens[0]} == set(context.task.labels)
            assert math.fsum(word.p for word in line.lens[-1]) == pytest.approx(1, abs=1e-3)
        else:
            assert said[line.answer :] == [tokenizer.token_text(token) for token in row.answer]
        assert (line.gradients is None) == (line.step == 0)
    for line in lines[1:]:
        assert line.gradients is not None and len(line.gradients) == layers + 1
        in_layers = math.hypot(*line.gradients[1:])
        assert in_layers == 0 if method == "prompt_tuning" else in_layers > 0
    losses = [np.mean([each.nats for each in line.text[line.answer :] if each.nats is not None]) for line in lines]
    assert losses[-1] != losses[0]
    assert fit.curve[3]["step"] == 4


def test_losses_and_lens_of_an_answer_are_those_of_transformers(texts: Context, tmp_path: Path) -> None:
    model = full.build(texts).eval()
    row = first_valid(texts)
    recorder = Recorder(tmp_path / LEARNED, model, texts.tokenizer, watched(texts, row), 1, 1)
    recorder.begin()
    recorder.lines.close()
    (line,) = Learned.read(tmp_path / LEARNED)
    oracle = AutoModelForCausalLM.from_pretrained(texts.source.path).eval()
    tokens = torch.tensor([[*row.prompt, *row.answer]])
    with torch.no_grad():
        log_p = oracle(tokens).logits[0].log_softmax(1)
        behind = [state[len(row.prompt) - 1] for state in oracle(tokens, output_hidden_states=True).hidden_states
                  for state in [state[0]]]  # fmt: skip
        lens = oracle.lm_head(torch.stack([*map(oracle.model.norm, behind[:-1]), behind[-1]])).softmax(1)
    nats = -log_p[:-1].gather(1, tokens[0, 1:, None])[:, 0].numpy()
    shown = [each.nats for each in line.text if each.nats is not None]
    assert shown == pytest.approx(nats[len(nats) - len(shown) :], rel=1e-3) and len(shown) >= len(row.answer)
    for behind_layer, words in zip(lens, line.lens, strict=True):
        assert [word.p for word in words] == pytest.approx(behind_layer.topk(3).values.tolist(), rel=1e-3)


def test_the_last_lens_of_labels_is_the_loss_that_training_sees(closed: Context, tmp_path: Path) -> None:
    from riyaz.methods.fitting.label_rows import put_label_head
    from riyaz.train import label_log_p, label_places

    model, row = put_label_head(closed, lora.build(closed)).eval(), first_valid(closed)
    recorder = Recorder(tmp_path / LEARNED, model, closed.tokenizer, watched(closed, row), 1, 1)
    recorder.begin()
    recorder.lines.close()
    (line,) = Learned.read(tmp_path / LEARNED)
    log_p = label_log_p(model, [row])[0]
    assert line.text[-1].nats == pytest.approx(-log_p[label_places(model, [row])[0]], rel=1e-3)
    assert {word.text: word.p for word in line.lens[-1]} == pytest.approx(
        dict(zip(closed.task.labels, np.exp(log_p).tolist())), rel=1e-3
    )


@pytest.mark.parametrize("kind", ["closed", "texts"])
def test_a_line_takes_one_pass(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from riyaz.methods.fitting.label_rows import put_label_head

    context: Context = request.getfixturevalue(kind)
    base = lora.build(context)
    model = put_label_head(context, base) if kind == "closed" else base
    lengths: list[int] = []
    base.register_forward_hook(lambda _module, _inputs, hidden: lengths.append(len(hidden)))
    row = first_valid(context)
    recorder = Recorder(tmp_path / LEARNED, model, context.tokenizer, watched(context, row), 1, 1)
    recorder.begin()
    recorder.lines.close()
    assert lengths == [len(row.prompt) + (0 if kind == "closed" else min(len(row.answer), module.TOKENS // 2) - 1)]


@pytest.mark.parametrize("method", TRAINED)
def test_training_is_the_same_without_it(method: str, closed: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(fitted(method, closed))
    for name in ("begin", "validated", "stepping"):
        monkeypatch.setattr(Recorder, name, lambda *_: None)
    bare = closed.folder.with_name("bare")
    assert contents(fitted(method, closed, folder=bare)) == whole
    assert (closed.folder / LEARNED).exists() and not (bare / LEARNED).exists()


@pytest.mark.parametrize(("phase", "step"), [("search", 6), ("train", 1), ("train", 4), ("train", 6)])
def test_a_stopped_fit_records_the_same_bytes(phase: str, step: int, closed: Context) -> None:
    fitted("lora", closed)
    seen: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == phase:
            seen.append(event)
            if len(seen) == step:
                raise KeyboardInterrupt

    stopped = closed.folder.with_name("stopped")
    with pytest.raises(KeyboardInterrupt):
        fitted("lora", closed, folder=stopped, listen=stop)
    fitted("lora", closed, folder=stopped)
    assert (stopped / LEARNED).read_bytes() == (closed.folder / LEARNED).read_bytes()


def test_a_long_prompt_is_read_whole_and_shown_around_its_answer() -> None:
    watching = Watched.of_answer(range(100), range(200, 260))
    assert len(watching.text) - watching.first == module.TOKENS and len(watching.sentence) == 100
    assert watching.answer == 100 and [*watching.text[100:]] == [*range(200, 200 + module.TOKENS // 2)]
    assert Watched.of_answer(range(5), (7, 8)).first == 0
    assert Watched.of_label(range(100), ("a", "b"), 1).first == 100 - module.TOKENS + 1


def test_a_fit_without_an_opening_records_too(closed: Context) -> None:
    assert first_valid(closed).example == closed.valid[0]
    fitted("lora", replace(closed, arm=replace(PLAN, opening=0, learning_rates=(1e-3,))))
    assert [line.step for line in Learned.read(closed.folder / LEARNED)] == STEPS
