"""Fabricated results for the tests of report and cli: a comparison as `riyaz compare` writes it."""

from typing import Any

from riyaz.json_files import from_json, to_document
from riyaz.methods import METHODS
from riyaz.results import ArmResult, Comparison


def arm(method: str, **known: Any) -> dict[str, Any]:
    """One arm of compare.json with every key of the contract; of a method that is none of ours it says nothing more."""
    empty: dict[str, Any] = {
        "method": method, "status": "ok", "metric": "accuracy", "score": None, "ci_low": None,
        "ci_high": None, "slices": {}, "extras": {}, "n_test": 300, "train_seconds": 0, "search_seconds": 0,
        "eval_seconds": 31.2,
        "peak_rss_mb": 812.3, "trainable_params": 0, "artifact_mb": 0.01, "ms_per_answer": 61.2,
        "prompt_tokens": 210.0, "forgetting_nats": 0, "kl_task": 0, "chosen": {}, "checks": {}, "reason": "",
    }  # fmt: skip
    if method in METHODS:
        empty["about"] = to_document(METHODS[method].about)
    assert set(known) <= set(empty), set(known) - set(empty)
    return empty | known


def comparison(**known: Any) -> dict[str, Any]:
    """A comparison with an arm of every status; the pick is certified."""
    arms = [
        arm(
            "nearest", extras={"macro_f1": 0.5512}, score=0.5766, ci_low=0.520, ci_high=0.631, ms_per_answer=0.02,
            kl_task=None,
        ),
        arm(
            "zero_shot", score=0.1233, ci_low=0.09, ci_high=0.165,
            slices={"rare": {"score": 0.1}, "a|b": {"score": 0.2}},
        ),
        arm("few_shot", score=0.4133, ci_low=0.359, ci_high=0.470, chosen={"k": 8}, ms_per_answer=1188.1),
        arm(
            "lora", status="cut", score=0.6933, ci_low=0.639, ci_high=0.743, train_seconds=212.3,
            search_seconds=110.2, trainable_params=4_884_480, artifact_mb=19.6, peak_rss_mb=2312.4,
            forgetting_nats=0.0123, kl_task=0.51, reason="trained 60 of 120 steps", slices={"rare": {"score": 0.5}},
            checks={"eos_in_every_row": {"ok": True}, "step0_loss": {"ok": True, "training": 2.345678},
                    "fits": {"ok": False, "rows": 40, "failed": 3}},
        ),
        arm("full", status="failed", metric=None, ms_per_answer=None, reason="out of memory\nat step 3"),
    ]  # fmt: skip
    document: dict[str, Any] = {
        "arms": arms,
        "pick": "lora",
        "runner_up": "nearest",
        "decision": "certified",
        "reason": "lora (accuracy 0.693 on 300 test rows) is picked; runner-up nearest. More rows help.",
        "rows_needed": None,
        "estimate_seconds": 980.0,
        "seconds": 1012.2,
        "data": {"rows": {"train": 240, "valid": 60, "test": 300}},
        "model": {"name": "smollm2-135m", "parameters": 134_515_008},
        "hardware": {"cpu": "A CPU", "cores": 2},
        "command": "riyaz compare train.jsonl --budget 25m",
        "versions": {"riyaz": "0.1.0", "torch": "2.13.0"},
    }
    return document | known


def typed(document: dict[str, Any]) -> Comparison:
    """The comparison as the report takes it."""
    return from_json(Comparison, document, "compare.json")


def typed_arm(method: str, **known: Any) -> ArmResult:
    """One arm as the report takes it."""
    return from_json(ArmResult, arm(method, **known), "compare.json")
