"""The repetition penalty of the engine: as transformers computes it, for each request alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch

from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.engine.runner import TokenRun, Top, Whole
from riyaz.engine.torch import runner as runners
from riyaz.engine.torch.runner import TorchRunner
from riyaz.models import load
from riyaz.sources import open_source

NEW, END = 12, 2
PROMPTS = ((5, 77, 301, 12), (9,), tuple(range(40, 90)), (7, 7, 7, 8))
PENALISED = Sampling(repetition_penalty=1.4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", seed=3)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine(TorchRunner(load(open_source(folder), torch.float32)))


def requests(sampling: Sampling) -> list[Request]:
    return [Request(i, prompt, limit=NEW, stop=frozenset({END}), sampling=sampling) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("penalty", [1.4, 0.8])
def test_a_penalised_answer_is_that_of_transformers(engine: Engine, folder: Path, penalty: float) -> None:
    from transformers import AutoModelForCausalLM

    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = requests(Sampling(repetition_penalty=penalty))
    answers = engine.generate(asked)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt])
        wanted = oracle.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, repetition_penalty=penalty
        )
        assert answer == [token for token in wanted[0, len(prompt) :].tolist() if token != END]
    assert answers != engine.generate(requests(Sampling())), "the penalty matters"


def test_neighbours_do_not_share_a_penalty(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = replace(PENALISED, temperature=0.9, top_k=40, seed=5)
    mixed = [*requests(PENALISED), *requests(Sampling()), *requests(drawn)]
    together = engine.generate(mixed)
    assert together == [engine.generate([request])[0] for request in mixed]
    assert together == [list(engine.stream(request)) for request in mixed]
    monkeypatch.setattr(runners, "HEAD_ROWS", 3)
    assert together == engine.generate(mixed), "in chunks of rows too"


def test_a_prefix_counts_as_seen(engine: Engine) -> None:
    whole = Request(0, (*range(40, 60), 9), limit=NEW, stop=frozenset({END}), sampling=PENALISED)
    behind = replace(whole, tokens=(9,), prefix=tuple(range(40, 60)))
    assert engine.generate([whole]) == engine.generate([behind])


def test_the_penalty_is_on_the_logits_of_seen_tokens_alone(engine: Engine) -> None:
    runner, prompt = engine.runner, (5, 77, 301, 12)
    raw = runner.forward([TokenRun(runner.open(), prompt, Whole(np.array([3])))])[0][0]
    model = runner.model  # type: ignore[attr-defined]
    logits = model.head(_hidden(model, prompt))[-1].detach().numpy()
    seen = [int(np.argmax(raw)), int(np.argmin(logits)), 77]
    tokens, log_p = runner.forward([TokenRun(runner.open(), prompt, Top(512, tuple(seen), 1.5))])[0]
    wanted = logits.copy()
    wanted[seen] = np.where(logits[seen] > 0, logits[seen] / 1.5, logits[seen] * 1.5)
    wanted = torch.tensor(wanted).log_softmax(0).numpy()
    assert np.abs(wanted[tokens] - log_p).max() < 1e-4 and logits[seen[0]] > 0 > logits[seen[1]]


def _hidden(model: Any, prompt: tuple[int, ...]) -> torch.Tensor:
    from riyaz.layers.attention import packed

    return model(torch.tensor(prompt), torch.arange(len(prompt)), packed(np.array([len(prompt)])))


def test_tokens_that_end_an_answer_are_never_penalised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn of a chat template ends with them, so a penalised model would not stop."""
    forward, asked = engine.runner.forward, []
    monkeypatch.setattr(engine.runner, "forward", lambda runs: asked.extend(runs) or forward(runs))
    stop = frozenset({END, 300})
    engine.generate([Request(0, (5, END, 9, 300, 5), limit=1, stop=stop, sampling=PENALISED)])
    assert asked[-1].want == Top(1, (5, 9), 1.4)
