"""What the processes of a pretraining run do that are not its first one: they measure and train as that announces, and
print and write nothing. torch is imported inside functions only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riyaz import hardware
from riyaz.config import PretrainConfig
from riyaz.config.option import flag_of
from riyaz.data.blocks import Corpus, evenly_spaced, reopened
from riyaz.events import quiet
from riyaz.families import FAMILIES
from riyaz.joining import join_start
from riyaz.json_files import from_json
from riyaz.pretraining import plan as planning
from riyaz.pretraining.folder import PLAN, WORK
from riyaz.pretraining.plan import Frozen
from riyaz.pretraining.recording import recorder_of
from riyaz.pretraining.speed import measured
from riyaz.ranks import Ranks
from riyaz.results import ELSEWHERE, RUN, PretrainRun
from riyaz.text.tokenizer import Tokenizer


def started_with(paths: Sequence[Path], options: PretrainConfig) -> dict[str, object]:
    """What has to be alike in all processes of a run before they begin: the program and its arguments."""
    threads = options.threads or hardware.threads()
    named = {flag_of(name): value for name, value in planning.absolute(options).explicit().items()}
    texts = " ".join(str(path) for path in paths)
    return {**hardware.versions(("riyaz", "torch")), "TEXT": texts, **named, "--threads": threads}


def follow(ranks: Ranks, paths: Sequence[Path], options: PretrainConfig, out: Path) -> PretrainRun:
    """Do what the first process announces until the run ends; returns the content of its run.json. Raises RiyazError
    where this process differs from the first one, or that one is gone."""
    import torch

    work = out / WORK
    torch.set_num_threads(options.threads or hardware.threads())
    corpus: Corpus | None = None
    while order := ranks.first(dict[str, Any]()):
        if order["do"] == "start":
            join_start(ranks, work, started_with(paths, options), order["mark"])
            continue
        tokenizer = Tokenizer.from_folder(work / "tokenizer")
        corpus = corpus or reopened(work / "text", tokenizer)
        if order["do"] == "measure":
            config = FAMILIES[order["family"]].from_hf(order["model"])
            compute, context, seed, ternary = order["how"]
            measured(config, corpus.train, compute, context, seed, ternary, ranks)
        else:
            _train(ranks, from_json(Frozen, order["plan"], PLAN, ELSEWHERE), corpus, tokenizer, work)
    return PretrainRun.read(out / RUN)


def _train(ranks: Ranks, frozen: Frozen, corpus: Corpus, tokenizer: Tokenizer, work: Path) -> None:
    import torch

    from riyaz.models.fresh import fresh
    from riyaz.train import train

    plan = frozen.plan
    torch.set_num_threads(frozen.threads)
    model = fresh(plan.config, plan.train["seed"], plan.model.get("ternary", False))
    valid = evenly_spaced(corpus.valid, plan.valid_windows, tokenizer)
    recorder = recorder_of(work, model, tokenizer, valid, plan, None)  # which writes nothing here
    train(model, corpus.train, valid, plan.settings(), work / "train", quiet, ranks=ranks,
          local_steps=plan.local_steps, stepping=recorder.stepping)  # fmt: skip
