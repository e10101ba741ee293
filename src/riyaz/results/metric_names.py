"""What metrics are called: the same in tables, sentences and pages."""

NAMES = {
    "accuracy": "accuracy",
    "decisions": "questions",
    "macro_f1": "macro F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "json_f1": "field F1",
    "tools": "tool calls",
    "sql": "execution accuracy",
    "pass@1": "pass@1",
    "command": "same command",
    "slots": "slot coverage",
    "nats": "nats per character",
    "preferred": "pairs won",
    "preferred_whole": "won as a whole",
    "thumbs": "thumbs matched",
    "reward": "won by reward",
    "parses": "parses",
    "exact_object": "exact object",
    "fits_schema": "fits its schema",
    "runs": "runs",
    "slots_all": "all slots",
    "length_ratio": "length ratio",
    "answer_log_probability": "answer log p",
}


def metric_name(metric: str | None) -> str:
    """The metric's name as text: `macro_f1` is `macro F1`."""
    return NAMES.get(metric or "", metric or "score")
