"""The keys of result files in words."""

NAMES = {
    # settings that a method chose
    "k": "examples in the prompt", "calibrated": "answers calibrated", "candidates": "prompts tried",
    "list_labels": "labels listed in the prompt", "best_step": "step that was best on validation rows",
    "search": "learning rates tried", "tokens_s": "training tokens per second", "rate": "learning rate",
    "max_new_tokens": "longest answer in tokens", "rooms": "scores by longest answer in tokens",
    "passages": "passages in the prompt", "difference": "difference from the task's own", "origin": "written by",
    "free_validation": "validation score of free answers",
    "span_validation": "validation score of answers taken from the passages",
    "span_words": "longest answer taken from the passages, in words",
    "even_labels": "labels made equally likely", "label_nats": "nats of the right label as they are",
    "even_label_nats": "nats of the right label with even labels", "nats": "nats of the right label",
    "taught_rows": "rows with answers of the teacher", "soft_targets": "its probabilities are learned",
    "common_offset": "nats added to common answers", "validation": "validation score", "error": "standard error",
    "precisions": "the trained model in several precisions",
    "worse_by": "nats worse than the first", "at_most": "95 % below", "served": "served in",
    # what a check compared
    "longest": "longest", "training": "in training", "base": "of the base model", "tensors": "tensors",
    "artifact": "of the artifact",    "apart": "unmerged", "ms_per_answer": "ms per answer", "ok": "held",
    # machine, model, versions
    "cpu": "processor", "machine": "architecture", "isa": "vector instructions", "bf16_is_fast": "fast in bfloat16",
    "memory_total_mb": "memory in MB", "memory_available_mb": "free memory in MB", "disk_free_mb": "free disk in MB",
    "peak_flops": "matrix products, FLOP per second", "mb": "size in MB", "sha256": "SHA-256",
    # data
    "duplicates": "training rows that repeat a prompt", "conflicts": "repeated prompts with another answer",
    "answer_words": "words of an answer", "p95": "95 % have at most", "unseen_labels": "labels only in the test",
    "why": "how the task was recognised",
    # a pretraining run
    "batch_size": "windows per step", "warmup": "share of the steps that warm up", "final": "last learning rate, as a "
    "share", "betas": "betas of AdamW", "validate_every": "steps between validations", "patience": "validations "
    "without a lower loss before it stops", "checkpoint_every": "steps between checkpoints", "micro_tokens": "tokens "
    "of one pass", "compute": "number type", "valid_windows": "windows of a validation", "vocab": "vocabulary",
    "kind": "kind", "keep_best": "ends with the best weights", "changes": "changes of length (step, steps)",
}  # fmt: skip
CHECKS = {
    "one_bos": "begins with one begin-of-text token", "ends_with_eos": "answers end with an end-of-text token",
    "prompt_is_prefix": "the prompt is the beginning of the row", "has_label": "every row has an answer to learn",
    "answer_as_template": "answers as the chat template writes them",
    "fits_context": "rows fit the model's context", "step0_loss": "first loss is the base model's, or the artifact's",
    "loss_finite": "the loss is a number", "weights_moved": "training changed the weights",
    "reopened": "same loss when opened again", "merged": "same answers when merged",
}  # fmt: skip


def key_name(key: object) -> str:
    """A key of a result file in words: `memory_total_mb` is `memory in MB`."""
    return NAMES.get(str(key), str(key).replace("_", " "))


def check_name(key: str) -> str:
    """The name of a check in words: `one_bos` is `begins with one begin-of-text token`."""
    return CHECKS.get(key, key.replace("_", " "))
