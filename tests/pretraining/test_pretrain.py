"""`riyaz pretrain` on a little text: what it leaves, who opens it, how it goes on, and what it refuses."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import torch
from small_llama import next_log_p
from tiny_comparison import command
from tiny_pretraining import SMALL, assert_equal_logits, lines, quick_machine, small, with_pictures

from riyaz import hardware
from riyaz.config import PretrainConfig
from riyaz.errors import RiyazError
from riyaz.predictor import open_model
from riyaz.pretraining import plan as planning
from riyaz.pretraining import run as running
from riyaz.pretraining.samples import FOX, draw_samples
from riyaz.pretraining.tokenizer_training import VocabularyTooLarge
from riyaz.sources import open_source


@pytest.fixture(scope="module", autouse=True)
def machine(one_core: pytest.MonkeyPatch) -> None:
    quick_machine(one_core)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, text: Path) -> tuple[tiny_comparison.Told, Path]:
    """A finished run with its whole report, and what it said; nobody writes into it."""
    out = tmp_path_factory.mktemp("done") / "out"
    with pytest.MonkeyPatch.context() as patch:
        with_pictures(patch)
        return command("pretrain", text, *SMALL, "--out", out, "--json"), out


def test_a_run_leaves_a_model_and_what_is_known_of_its_training(done: tuple[tiny_comparison.Told, Path]) -> None:
    told, out = done
    assert told.status == 0, told.err
    document = json.loads((out / "run.json").read_text())
    assert told.document == document and document["status"] == "done"
    assert document["model"] == {"family": "llama", "layers": 2, "heads": 2, "width": 32, "context": 32,
                                 "parameters": 257 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 64) + 32}  # fmt: skip
    assert document["tokenizer"]["kind"] == "bytes" and document["tokenizer"]["vocab"] == 257
    assert document["text"]["files"] == 2 and document["text"]["tokens"] == document["text"]["bytes"] + 2
    assert {value["name"] for value in document["derived"]} >= {
        "model",
        "batch",
        "steps",
        "learning rate",
        "validation",
    }
    assert all(value["why"] for value in document["derived"])
    metrics = lines(out / "metrics.jsonl")
    assert [entry["step"] for entry in metrics] == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in metrics if "valid_loss" in entry] == [3, 6]
    assert all(
        entry.keys() >= {"loss", "norm", "learning_rate", "seconds", "tokens_s", "peak_share"} for entry in metrics
    )
    best = min(entry["valid_loss"] for entry in metrics if "valid_loss" in entry)
    result, cost = document["result"], document["cost"]
    # so few windows are held out that validations and the judgement look at all of them
    held = document["text"]["valid_tokens"] // 32
    assert result["windows"] == document["plan"]["valid_windows"] == held and 1 < held < running.JUDGED
    assert result["valid_loss"] == pytest.approx(best, rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(best / math.log(2), rel=0.01)
    assert metrics[-1]["bits_per_byte"] / metrics[-1]["valid_loss"] == result["bits_per_byte"] / result["valid_loss"]
    assert 5 * 4 * 32 < cost["tokens"] <= 6 * 4 * 32  # the batches of an epoch are even
    assert cost["seconds"] > metrics[-1]["seconds"] > 0 and cost["peak_rss_mb"] > 0
    samples = lines(out / "samples.jsonl")
    assert [entry["step"] for entry in samples] == [0, 3, 6]
    assert all(len(entry["texts"]) >= 3 and len(entry["next"]["words"]) == 10 for entry in samples)
    assert samples[0]["next"]["prompt"] == FOX and sum(word["p"] for word in samples[0]["next"]["words"]) < 1
    assert not (out / "work").exists() and (out / "report.html").read_text().count("<svg") >= 8
    assert all(word in told.err for word in ("model: 0.03 million parameters", "estimate:", "bits/byte", "of peak"))


def test_transformers_loads_it_with_equal_logits(done: tuple[tiny_comparison.Told, Path]) -> None:
    assert_equal_logits(done[1])


def test_it_is_a_model_like_any_other(done: tuple[tiny_comparison.Told, Path], tmp_path: Path) -> None:
    _, out = done
    told = command("predict", FOX, "--model", out, "--json")
    assert told.status == 0, told.err
    words_now = lines(out / "samples.jsonl")[-1]["next"]["words"]
    if json.loads((out / "run.json").read_text())["result"]["best_step"] == 6:
        assert told.document["before"][0]["token"] == words_now[0]["text"]
    assert command("generate", out, "Hello", "--max-tokens", 3).status == 0
    for format in ("hf", "gguf"):
        told = command("export", out, "--format", format, "--out", tmp_path / format, "--json")
        assert told.status == 0 and told.document["difference"] < 1e-3, told.err


def test_gpt2_and_a_given_tokenizer(done: tuple[tiny_comparison.Told, Path], text: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    _, out = done
    told = command("pretrain", text, *small("--family", "gpt2", "--tokenizer", out), "--out", tmp_path / "out")
    assert told.status == 0, told.err
    assert json.loads((tmp_path / "out/run.json").read_text())["tokenizer"]["kind"] == "folder"
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(found).__name__ == "GPT2LMHeadModel" and open_model(tmp_path / "out").has_model
    assert_equal_logits(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"", (), "text.txt: the file is empty"),
        (b"\x7fELF\x00\x01\x02\x00" * 50, (), "text.txt: is a binary file"),
        (b"too short", (), "fewer than two windows"),
        (b"\xff\xfeword" * 3 + b"\xe9", (), "text.txt"),
        (None, ("--heads", 3), "--heads: 3 heads do not share a width of 32 evenly"),
        (None, ("--width", 6, "--heads", 2), "--heads: the head size 3 is odd"),
        (None, ("--family", "gpt2", "--width", 100, "--heads", 4), "--heads: the head size 25 is odd"),
        (None, ("--width", 1040, "--heads", 1), "--heads: head_dim is 1040, not a whole number from 1 to 1024"),
        (None, ("--layers", 2000), "--layers: num_hidden_layers is 2000"),
        (Path("loop.txt"), (), "loop.txt: cannot be read (Too many levels of symbolic links)"),
        (None, ("--budget", ""), "--budget: '' is not a duration"),
        (None, ("--batch", 3.4), 'invalid value for --batch: unable to convert "3.4" into int'),
        (None, ("--budget", "soon"), "--budget: 'soon' is not a duration"),
        (None, ("--width", 65536, "--heads", 64, "--layers", 99), "MB of memory to train and"),
        (None, ("--tokenizer", "nowhere"), "nowhere: there is no tokenizer.json"),
        (None, ("--lr", "nan"), "--lr"),
        (None, ("--steps", 0), "--steps"),
        (None, ("--budget", "1h"), "--budget: has no effect beside --steps"),
        (None, ("--seed", 2**64), "--seed"),
        (None, ("--size", "2m"), "--size"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_leaves_nothing(
    text: Path, tmp_path: Path, content: bytes | Path | None, options: tuple, says: str
) -> None:
    named = text
    if isinstance(content, Path):  # a link to itself
        named = tmp_path / content
        named.symlink_to(named)
    elif content is not None:
        named = tmp_path / "text.txt"
        named.write_bytes(content)
    told = command("pretrain", named, *small(*options), "--out", tmp_path / "in/out")
    assert told.status == 2 and says in told.err.splitlines()[-1], told.err
    assert told.err.splitlines()[-1].startswith("error: ") and not (tmp_path / "in").exists()


def test_only_a_vocabulary_that_is_too_large_becomes_a_smaller_one(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def failing(texts: Any, kind: str, vocab: int, folder: Path) -> None:
        tried.append(vocab)
        raise (VocabularyTooLarge("too large") if vocab == 2048 else RiyazError("the disk is full"))

    monkeypatch.setattr(running, "train_tokenizer", failing)
    monkeypatch.setattr(planning, "VOCABULARIES", {2048: 1000, 1024: 500})
    told = command("pretrain", text, "--steps", 3, "--out", tmp_path / "out")
    assert told.status == 2 and told.err.splitlines()[-1] == "error: the disk is full" and tried == [2048, 1024]


def test_other_folders_are_left_alone(text: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    told = command("pretrain", text, *SMALL, "--out", tmp_path, "--resume")
    assert told.status == 2 and "holds something else" in told.err
    told = command("pretrain", "--resume", "--out", tmp_path / "new")
    assert told.status == 2 and "no run to resume" in told.err and not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_a_disk_that_is_too_small_is_refused_before_it_starts(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "disk_free", lambda path: 0)
    told = command("pretrain", text, *SMALL, "--out", tmp_path / "out")
    assert told.status == 2 and "MB of disk and 0 MB are free" in told.err and not (tmp_path / "out").exists()


def test_a_shape_that_is_no_model_is_refused_before_the_text_is_read(text: Path, tmp_path: Path) -> None:
    told = command("pretrain", tmp_path / "gone.txt", "--width", 1040, "--heads", 1, "--out", tmp_path / "out")
    assert told.status == 2 and told.err.startswith("error: --heads: head_dim is 1040")


def test_a_bug_before_the_plan_leaves_nothing(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "text_hash", lambda texts: 1 // 0)
    assert command("pretrain", text, *SMALL, "--out", tmp_path / "in/out").status == 1
    assert not (tmp_path / "in").exists()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from riyaz import checkpoint

    write = checkpoint.write_tensors

    def full(path: Path, *arguments: Any) -> None:
        if "step-000004" in str(path):
            raise OSError(28, "No space left on device")
        write(path, *arguments)

    arguments = ("pretrain", text, *SMALL, "--checkpoint-every", 2, "--out", tmp_path / "out")
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(checkpoint, "write_tensors", full)
        told = command(*arguments)
    assert told.status == 2 and "No space left on device" in told.err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out" / "work/train").glob("step-*")] == ["step-000002"]
    heard = []
    monkeypatch.setattr(running.Watch, "listen", lambda watch, event: heard.append(event.metrics["step"]))
    running.pretrain([], PretrainConfig(), tmp_path / "out", resume=True)
    assert heard == [3, 4, 5, 6]


def test_samples_change_nothing_and_are_the_same_again(done: tuple[tiny_comparison.Told, Path]) -> None:
    from riyaz.models import load

    _, out = done
    source = open_source(out)
    model, tokenizer = load(source, torch.float32), source.tokenizer()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    np.random.seed(5)
    random.seed(5)
    seen = [draw_samples(model, tokenizer, "The", 1.0, 3, 7) for _ in range(2)]
    assert seen[0] == seen[1] and torch.equal(torch.get_rng_state(), state) and not model.training
    assert seen[0] != draw_samples(model, tokenizer, "The", 1.0, 4, 7)
    p = [word["p"] for word in seen[0]["next"]["words"]]
    assert p == sorted(p, reverse=True)
    exact = open_model(out)
    assert exact.has_model and exact.tokenizer is not None
    best = next_log_p(exact.lm, exact.tokenizer.encode(FOX)).argmax()
    assert exact.tokenizer.token_text(int(best)) in [word["text"] for word in seen[0]["next"]["words"][:3]]


def test_a_prompt_of_ones_own_is_watched_and_threads_are_those_asked_for(text: Path, tmp_path: Path) -> None:
    out, prompt = tmp_path / "out", "Le renard brun"
    told = command("pretrain", text, *SMALL, "--prompt", prompt, "--threads", 2, "--out", out)
    assert told.status == 0, told.err
    samples = lines(out / "samples.jsonl")
    assert [entry["next"]["prompt"] for entry in samples] == [prompt] * 3
    assert all(entry["texts"][0]["prompt"] == prompt for entry in samples)
    assert "The" not in [each["prompt"] for each in samples[0]["texts"]]
    assert prompt in (out / "report.html").read_text() and FOX not in (out / "report.html").read_text()
    assert json.loads((out / "plan.json").read_text())["threads"] == 2
    again = command("pretrain", "--threads", 3, "--out", out, "--resume")
    assert again.status == 2 and "--threads 3 instead of 2" in again.line
    again = command("pretrain", "--prompt", "Der Fuchs", "--out", out, "--resume")
    assert again.status == 2 and f"--prompt Der Fuchs instead of {prompt}" in again.line


def test_a_prompt_that_fills_the_context_is_refused(text: Path, tmp_path: Path) -> None:
    told = command("pretrain", text, *SMALL, "--prompt", "fox " * 8, "--out", tmp_path / "out")
    assert told.status == 2 and told.line.startswith("error: --prompt: has 32 tokens; the context is 32; give a sho")


@pytest.mark.slow
def test_every_method_adapts_it(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    options = small("--context", 512, "--batch", 2, "--steps", 4)
    assert command("pretrain", text, *options, "--out", out).status == 0
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    tiny_comparison.workers_inside(monkeypatch)
    told = command(
        "compare", tmp_path / "data", "--model", out, "--budget", "3h", "--out", tmp_path / "adapted", "--json"
    )
    assert told.status == 0, told.err
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert set(arms) == set(tiny_comparison.METHODS) and {arm["status"] for arm in arms.values()} == {"ok"}, told.err
    assert all(math.isfinite(arms[name]["forgetting_nats"]) for name in ("prompt_tuning", "lora", "full"))
