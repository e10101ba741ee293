"""From the files of finished parts to one row of `compare.json`."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.comparison.folder import KEPT, ComparisonFolder, megabytes
from riyaz.methods.base import ArmPlan
from riyaz.metrics.intervals import interval
from riyaz.metrics.scores import extras

EMPTY: dict[str, Any] = {
    "metric": None, "score": None, "ci_low": None, "ci_high": None, "slices": {}, "n_test": 0, "train_seconds": 0.0,
    "search_seconds": 0.0, "eval_seconds": 0.0, "peak_rss_mb": None, "trainable_params": 0, "artifact_mb": None,
    "ms_per_answer": None, "prompt_tokens": None, "forgetting_nats": None, "kl_task": None, "chosen": {}, "checks": {},
}  # fmt: skip


def arm_row(folder: ComparisonFolder, plan: ArmPlan, parts: Sequence[str], reason: str) -> dict[str, Any]:
    """The row of an arm from its parts' files; `reason` says why it has none."""
    if plan.skipped or reason:
        status = "skipped" if plan.skipped else "failed"
        return {"method": plan.method, "status": status, **EMPTY, "reason": plan.skipped or reason}
    runs = [folder.run(plan.method, part) for part in parts]
    fits = [json.loads((run / "fit.json").read_text(encoding="utf-8")) for run in runs]
    results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in runs]
    kept_fit, kept = fits[parts.index(KEPT)], results[parts.index(KEPT)]
    failed = [f"{part}: {name}" if len(parts) > 1 else name
              for part, fit, result in zip(parts, fits, results)
              for name, check in (fit["checks"] | result["checks"]).items() if not check["ok"]]  # fmt: skip
    rows = [row for run in runs for row in read_predictions(run)]
    return {
        "method": plan.method,
        "status": "failed" if failed else "cut" if plan.cut else "ok",
        **_scores(kept["metric"], rows),
        "train_seconds": sum(fit["train_seconds"] for fit in fits),
        "search_seconds": sum(fit["search_seconds"] for fit in fits),
        "eval_seconds": sum(result["eval_seconds"] for result in results),
        "peak_rss_mb": max(part["peak_rss_mb"] for part in (*fits, *results)),
        "serve_rss_mb": kept["serve_rss_mb"],
        "trainable_params": kept_fit["trainable_params"],
        "artifact_mb": megabytes(folder.run(plan.method, KEPT) / "artifact"),
        "ms_per_answer": kept["ms_per_answer"],
        "prompt_tokens": kept["prompt_tokens"],
        "forgetting_nats": kept["forgetting_nats"],
        "kl_task": kept["kl_task"],
        "chosen": kept_fit["chosen"],
        "checks": kept_fit["checks"] | kept["checks"],
        "curve": kept_fit["curve"],
        **_retrieval([result["retrieval"] for result in results if "retrieval" in result], kept_fit["chosen"]),
        "reason": _reason(plan, failed),
    }


def _reason(plan: ArmPlan, failed: list[str]) -> str:
    if failed:
        return f"failed check{'s' if len(failed) > 1 else ''}: {', '.join(failed)}"
    return f"trained {plan.steps} of {plan.recipe_steps} steps" if plan.cut else ""


def _retrieval(parts: Sequence[dict], chosen: dict) -> dict[str, Any]:
    """`retrieval` of an arm: that of its only part, or the mean over folds, each by its rows."""
    if len(parts) < 2:
        return {"retrieval": parts[0]} if parts else {}

    def mean(name: str, by: str) -> float | None:
        known = [(part[name], part[by]) for part in parts if part.get(name) is not None]
        return sum(value * rows for value, rows in known) / sum(rows for _, rows in known) if known else None

    found = {"k": chosen.get("passages", parts[0]["k"])}
    found |= {name: sum(part.get(name, 0) for part in parts) for name in ("rows", "grounded_rows")}
    found |= {name: mean(name, "rows") for name in ("closed_book", "retrieved")}
    found["grounded_nats"] = mean("grounded_nats", "grounded_rows")
    named = [part for part in parts if "recall" in part]
    if named:
        rows = sum(part["named_rows"] for part in named)
        found["recall"] = {k: sum(p["recall"][k] * p["named_rows"] for p in named) / rows for k in named[0]["recall"]}
        found |= {"mrr": mean("mrr", "named_rows"), "named_rows": rows, "oracle": mean("oracle", "rows")}
    return {"retrieval": found}


def _scores(metric: str, rows: Sequence[dict]) -> dict[str, Any]:
    """Mean, 95 % interval and extras over the test rows of all parts, and the mean of every slice."""
    scores = np.array([row["score"] for row in rows])
    low, high = interval(scores)
    slices = defaultdict(list)
    for row in rows:
        if row.get("slice") is not None:
            slices[row["slice"]].append(row["score"])
    return {
        "metric": metric,
        "score": float(scores.mean()),
        "ci_low": low,
        "ci_high": high,
        "slices": {name: {"score": float(np.mean(found)), "n": len(found)} for name, found in sorted(slices.items())},
        "n_test": len(rows),
        "extras": extras(metric, [row["prediction"] for row in rows], [row["answers"] for row in rows])
        | _mean_log_probability(rows),
    }


def _mean_log_probability(rows: Sequence[dict]) -> dict[str, float]:
    known = [row["answer_log_probability"] for row in rows if row.get("answer_log_probability") is not None]
    return {"answer_log_probability": float(np.mean(known))} if known else {}


def row_scores(folder: ComparisonFolder, arms: Sequence[dict], parts: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of every test row of the finished arms, rows in the same order for all."""
    found = {}
    for arm in arms:
        if arm["status"] in ("ok", "cut"):
            runs = [folder.run(arm["method"], part) for part in parts]
            rows = sorted((row["where"], row["score"]) for run in runs for row in read_predictions(run))
            found[arm["method"]] = np.array([score for _, score in rows])
    return found


def read_predictions(run: Path) -> list[dict]:
    """The predictions a part wrote on its test rows."""
    with (run / "predictions.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
