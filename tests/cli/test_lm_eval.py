"""Riyaz as a model of lm-eval: per item as its Hugging Face backend, on tasks in local JSON files; and its command."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_llama
from conftest import Finished
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny_comparison import closed_rows, write_rows

from riyaz import lm_eval
from riyaz.errors import RiyazError
from riyaz.lm_eval import RiyazLM

PLACES = ("in the city", "tomorrow", "on the account", "in the shopping list")
KINDS = ("choice", "write", "roll")
LONG = "the quick brown fox jumps over the lazy dog, and then the other one returns. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("lm_eval") / "tiny", seed=3, context=128)


@pytest.fixture(scope="module")
def riyaz(folder: Path) -> RiyazLM:
    return RiyazLM(str(folder), precision="fp32", batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def peer(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval starts a dozen programs to describe the machine."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Multiple choice with examples before it, writing up to a stop text, and whole texts longer than the context."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": f"{row['text']}?", "choices": list(PLACES), "answer": i % 4, "text": LONG * (1 + i % 5)}
        for i, row in enumerate(closed_rows(12, "please"))
    ]
    given = {
        "dataset_path": "json", "test_split": "test", "fewshot_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(write_rows(folder / "rows.jsonl", rows))},
                           "cache_dir": str(folder / "cache")},
    }  # fmt: skip
    return [
        {**given, "task": "choice", "output_type": "multiple_choice", "doc_to_text": "{{question}}\nAnswer:",
         "doc_to_choice": "{{choices}}", "doc_to_target": "answer", "num_fewshot": 2,
         "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]},
        {**given, "task": "write", "output_type": "generate_until", "doc_to_text": "{{question}}", "num_fewshot": 0,
         "doc_to_target": "{{choices[0]}}", "generation_kwargs": {"until": [" t", "\n\n"], "max_gen_toks": 24},
         "metric_list": [{"metric": "exact_match"}]},
        {**given, "task": "roll", "output_type": "loglikelihood_rolling", "doc_to_text": "",
         "doc_to_target": "{{text}}", "num_fewshot": 0,
         "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}]},
    ]  # fmt: skip


def evaluated(model: Any, tasks: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return simple_evaluate(
        model=model,
        tasks=[dict(task) for task in tasks],
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
        **options,
    )


@pytest.mark.parametrize("template", [False, True])
def test_every_item_is_as_with_the_hugging_face_backend(
    riyaz: RiyazLM, peer: HFLM, tasks: list[dict[str, Any]], template: bool
) -> None:
    chosen = tasks[:2] if template else tasks
    ours, theirs = (evaluated(model, chosen, apply_chat_template=template) for model in (riyaz, peer))
    for task in KINDS[: len(chosen)]:
        pairs = list(zip(ours["samples"][task], theirs["samples"][task], strict=True))
        assert len(pairs) == 12
        for one, other in pairs:
            assert one["arguments"] == other["arguments"]
            if task == "write":
                assert one["resps"] == other["resps"]
            elif task == "roll":
                assert one["resps"][0][0] == pytest.approx(other["resps"][0][0], abs=1e-4)
            else:
                mine, hers = ([answer[0] for answer in each["resps"]] for each in (one, other))
                assert [nats for nats, _ in mine] == pytest.approx([nats for nats, _ in hers], abs=1e-4)
                assert [greedy for _, greedy in mine] == [greedy for _, greedy in hers]
        figures = [{key: value for key, value in result["results"][task].items() if isinstance(value, float)}
                   for result in (ours, theirs)]  # fmt: skip
        assert figures[0] and figures[0] == pytest.approx(figures[1], rel=1e-5)


def asked(*arguments: object) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def test_a_continuation_of_likeliest_tokens_is_told(riyaz: RiyazLM, peer: HFLM) -> None:
    """What the model writes by itself is its likeliest continuation; texts too long are cut from the left alike."""
    prompts = ["where is my order", "", LONG * 12]
    written = riyaz.generate_until([asked(text or "<|im_start|>", {"max_gen_toks": 6}) for text in prompts])
    pairs = [asked(prompt, text) for prompt, text in zip(prompts, written)] + [asked("where is", " my refund")]
    ours, theirs = (model.loglikelihood(pairs, disable_tqdm=True) for model in (riyaz, peer))
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert ours[0][1] and not ours[3][1]
    assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in theirs], abs=1e-4)


def test_writing_ends_with_a_stop_text_or_the_limit(riyaz: RiyazLM, peer: HFLM) -> None:
    kwargs: list[dict[str, Any]] = [
        {"max_gen_toks": 20}, {"max_gen_toks": 20, "until": "e"}, {"max_new_tokens": 3, "until": ["e", " "]},
        {"max_gen_toks": 20, "do_sample": False, "temperature": 0.7},
    ]  # fmt: skip
    ours, theirs = (
        model.generate_until([asked("where is the order", dict(each)) for each in kwargs], disable_tqdm=True)
        for model in (riyaz, peer)
    )
    assert ours == theirs and ours[3] == ours[0]
    assert "e" not in ours[1] and len(riyaz.tok_encode(ours[0], add_special_tokens=False)) >= 10
    drawn = {"max_gen_toks": 20, "do_sample": True, "temperature": 1.0, "seed": 1}
    first, second = (riyaz.generate_until([asked("where is", dict(drawn))])[0] for _ in range(2))
    assert first == second != riyaz.generate_until([asked("where is", {**drawn, "seed": 2})])[0]


def test_nothing_is_written_after_a_stop_text(riyaz: RiyazLM, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, real = [], riyaz.model.lm.step
    monkeypatch.setattr(riyaz.model.lm, "step", lambda: steps.append(1) or real())
    (text,) = riyaz.generate_until([asked("where is the order", {"max_gen_toks": 60, "until": ["e", "a", "t"]})])
    assert len(steps) <= len(text) + 2 < 60 and not riyaz.model.lm.running


def test_tokens_are_those_of_the_hugging_face_backend(riyaz: RiyazLM, peer: HFLM) -> None:
    chat = riyaz.apply_chat_template([{"role": "user", "content": "where?"}])
    begun = [{"role": "user", "content": "where?"}, {"role": "assistant", "content": "In the"}]
    assert chat == peer.apply_chat_template([{"role": "user", "content": "where?"}])
    assert riyaz.apply_chat_template(begun, False) == peer.apply_chat_template(begun, False)
    for text in (chat, "where is <|im_end|> it", "", " a "):
        assert riyaz.tok_encode(text) == peer.tok_encode(text)
    assert (riyaz.prefix_token_id, riyaz.eot_token_id) == (peer.prefix_token_id, peer.eot_token_id)
    assert riyaz.max_length == peer.max_length == 128


def test_an_artifact_is_asked_with_its_own_prompt(quick: Finished) -> None:
    model = RiyazLM(str(quick.artifact("lora")), precision="fp32")
    chat = model.apply_chat_template([{"role": "user", "content": "where is my card"}])
    assert "Classify" in chat and chat.endswith("<|im_start|>assistant\n")
    bare = RiyazLM(str(quick.artifact("zero_shot")), precision="fp32")
    pair = [asked("where is", " my order")]
    assert model.loglikelihood(pair, disable_tqdm=True) != bare.loglikelihood(pair, disable_tqdm=True)


def test_wrong_arguments_are_refused(quick: Finished, folder: Path, riyaz: RiyazLM) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({}, "--model_args: pretrained is missing; choose from pretrained, precision, kv, base, max_gen_toks"),
        ({"pretrained": str(folder), "peft": "x"}, "--model_args: unknown 'peft'"),
        ({"pretrained": str(quick.artifact("nearest"))}, "no language model answers"),
        ({"pretrained": "no-such-model"}, "no-such-model"),
    ]
    for arguments, says in wrong:
        with pytest.raises(RiyazError, match=says):
            RiyazLM(**arguments)  # type: ignore[arg-type]
    for kwargs, says in (({"num_beams": 4}, "unknown 'num_beams'"), ({"max_gen_toks": 128}, "128 tokens to write")):
        with pytest.raises(RiyazError, match=says):
            riyaz.generate_until([asked("a", kwargs)])
    with pytest.raises(RiyazError, match="do not fit the context of 128"):
        riyaz.loglikelihood([asked("a", LONG * 20)], disable_tqdm=True)


def test_without_the_package_its_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(RiyazError, match=r"lm-eval is not installed; .*\[lm-eval\]"):
        runpy.run_module("riyaz.lm_eval")
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("riyaz.lm_eval", run_name="__main__")
    assert capsys.readouterr().err.startswith("error: lm-eval is not installed")


def test_the_command_knows_the_model(
    folder: Path, tasks: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "choice.yaml").write_text(json.dumps(tasks[0]))
    monkeypatch.setattr(TaskManager.__init__, "__defaults__", (None, None, False, None))  # thousands of other tasks
    command = ["lm_eval", "run", "--model", "riyaz", "--tasks", "choice", "--limit", "4", "--include_path",
               str(tmp_path), "--model_args"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*command, f"pretrained={folder},precision=fp32"])
    assert lm_eval.main() == 0 and "|choice|" in capsys.readouterr().out.replace(" ", "")
    monkeypatch.setattr(sys, "argv", [*command, "precision=fp32"])
    assert lm_eval.main() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --model_args: pretrained is missing")
