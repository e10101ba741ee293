"""General text among the training rows: the base's own or a file's, with what the base predicts in it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
from fit_context import PLAN, fit_context
from refusals import assert_refused

from riyaz import rehearsal
from riyaz.comparison.fit_part import rehearsing
from riyaz.comparison.folder import Chosen
from riyaz.data.rows import Row
from riyaz.engine.opening import open_engine
from riyaz.engine.request import Request
from riyaz.methods import METHODS, full, lora
from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.weights import rehearsed_rows, rows_for
from riyaz.rehearsal import LEAST_TEXTS, Rehearsal, rehearsal_of

pytestmark = pytest.mark.usefixtures("in_float32")
CLOSE = 1e-5  # nats


@pytest.fixture
def context(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(rehearsal, "TEXTS", 12)
    return fit_context(model_folder, tmp_path)


def own(context: Context) -> Rehearsal:
    return rehearsal_of(context.source, context.tokenizer, context.precision, None)


def test_the_base_writes_texts_and_says_what_it_predicts_in_them(context: Context) -> None:
    made = own(context)
    assert made.tokens.shape == (12, rehearsal.LENGTH) and len({tuple(text) for text in made.tokens.tolist()}) == 12
    lm = open_engine(context.source, context.precision)
    for text in (0, 7):
        first, *rest = made.tokens[text].tolist()
        (log_p,) = lm.distributions([Request(0, (first,))], [rest])
        best = np.sort(log_p, axis=1)[:, ::-1][:, : made.likeliest.shape[2]]
        assert np.allclose(np.sort(made.log_p[text], axis=1)[:, ::-1], best, atol=CLOSE)
        assert np.allclose(np.take_along_axis(log_p, made.likeliest[text].astype(int), 1), made.log_p[text], atol=CLOSE)


def test_texts_are_made_once_for_a_base(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    made = own(context)
    monkeypatch.setattr(rehearsal, "own_texts", lambda *_: pytest.fail("made again"))
    again = own(context)
    assert all(np.array_equal(getattr(made, name), getattr(again, name)) for name in ("tokens", "likeliest", "log_p"))
    (kept,) = (Path(context.folder) / "home" / rehearsal.FOLDER).iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    with assert_refused(kept.name):
        own(context)


def test_a_file_is_cut_into_texts_of_one_length(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "general.txt"
    path.write_text(tiny_llama.CORPUS * 40)
    made = rehearsal_of(context.source, context.tokenizer, context.precision, path)
    stream = context.tokenizer.encode(path.read_text())
    starts = len(context.tokenizer.beginning)
    assert made.tokens.shape == (12, rehearsal.LENGTH)
    for text in made.tokens.tolist():
        part = text[starts:]
        assert any(stream[i : i + len(part)] == part for i in range(0, len(stream), len(part)))
    path.write_text("too little")
    with assert_refused("general.txt", "too few to rehearse", f"at least {LEAST_TEXTS * rehearsal.LENGTH:,}"):
        rehearsal_of(context.source, context.tokenizer, context.precision, path)
    with assert_refused("none.txt", "cannot be read", "the word self"):
        rehearsal_of(context.source, context.tokenizer, context.precision, tmp_path / "none.txt")


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_rows_have_the_share_of_tokens_and_the_weight_of_the_tasks(context: Context, share: float) -> None:
    rows = rows_for(context, context.train)
    general = rehearsed_rows(replace(context, replay=share), rows)
    shared = 0
    while len({row.prompt[shared] for row in rows}) == 1:
        shared += 1
    read = sum(row.tokens - shared for row in rows)
    assert sum(row.tokens for row in general) == pytest.approx(share / (1 - share) * read, abs=0.6 * rehearsal.LENGTH)
    weight = sum(row.wanted.weight * len(row.answer) for row in general if row.wanted)
    assert weight == pytest.approx(sum(row.weight for row in rows)), "beside labels, which weigh one each"
    assert rehearsed_rows(context, rows) == []


def forgotten(context: Context, method: Any, share: float) -> float:
    """Mean divergence of the base's texts from a model that was trained, in nats per token."""
    import torch

    from riyaz.train import answer_nats, micro_batches

    kept: list[Any] = []
    build = method.build

    def watched(context: Context) -> Any:
        kept.append(build(context))
        return kept[-1]

    arm = replace(PLAN, steps=80, recipe_steps=80, opening=0, learning_rates=(5e-3,), validate_every=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "build", watched)
        patch.setattr("riyaz.methods.fitting.weights._saved", lambda *_: (_ for _ in ()).throw(Finished))
        with pytest.raises(Finished):
            method.fit(replace(context, replay=share, arm=arm))
    rows = own(context).rows(12, 1.0)
    with torch.no_grad():
        nats = sum(answer_nats(kept[-1], micro).item() for micro in micro_batches(rows, 512))
    return nats / sum(len(row.answer) for row in rows)


class Finished(Exception):
    """Training has ended."""


@pytest.mark.parametrize("method", [lora, full])
def test_a_model_that_rehearses_stays_near_its_base(context: Context, method: Any) -> None:
    without, rehearsed = forgotten(context, method, 0.0), forgotten(context, method, 0.5)
    assert rehearsed < 0.7 * without and without > 0.01, (without, rehearsed)


def test_lora_and_full_rehearse_and_prompt_tuning_does_not() -> None:
    chosen = Chosen(seed=0, general=None, replay=0.2, replay_from="self")
    fields = {name: rehearsing(chosen, method) for name, method in METHODS.items()}
    assert {name for name in fields if fields[name]} == {"lora", "full", "rag_lora", "dpo", "orpo", "kto", "distil"}
    assert fields["lora"] == {"replay": 0.2, "replay_from": Path("self")}


def test_steps_have_as_many_answers_as_without_general_text(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from riyaz import train as training

    plans: list[tuple[Any, list[Row]]] = []

    def watched(model: Any, rows: Any, valid: Any, plan: Any, *rest: Any, **more: Any) -> Any:
        plans.append((plan, list(rows)))
        raise Finished

    monkeypatch.setattr(training, "train", watched)
    for share in (0.0, 0.4):
        with pytest.raises(Finished):
            lora.fit(replace(context, replay=share, arm=replace(PLAN, learning_rates=(1e-3,), opening=0)))
    (plain, own_rows), (more, rows) = plans
    assert [row.wanted is None for row in rows].count(True) == len(own_rows)
    assert more.batch_size * len(own_rows) / len(rows) == pytest.approx(plain.batch_size, abs=0.5)


def test_a_comparison_refuses_a_file_that_it_cannot_rehearse(tmp_path: Path, asked: tuple) -> None:
    path = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(40, "please"))
    told = tiny_comparison.command(
        "compare", path, *asked, "--methods", "nearest,lora", "--replay-from", tmp_path / "none.txt", "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert told.status != 0 and "none.txt" in told.line and "the word self" in told.line
