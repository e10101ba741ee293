"""Hallucination: does a model know when it does not know, and does it say what its passages say?"""

from riyaz.limits import abstain, consistency, passages, premises, truths
from riyaz.limits.inputs import NO_MODEL, NO_ROWS, Inputs, Work
from riyaz.results import Suite

SMALL = 2.5  # the answers to one question are read together, which is slower than full batches


def work(inputs: Inputs) -> Work:
    """The tokens of all questions with their answers, and answers to the user's rows."""
    if inputs.model is None:
        return Work()
    texts = [*truths.texts(inputs.claims), *premises.texts()]
    total = Work(SMALL * sum(map(len, inputs.model.tokenizer.encode_all(texts))), premises.TOKENS * premises.LEAST)
    rows = inputs.rows
    if rows is not None:
        total += Work(rows=1.5 * (len(rows.calibrate) + len(rows.test)))
        if rows.task.kind != "closed":
            total += Work(rows=consistency.DRAWN * min(consistency.MOST, len(rows.test)))
            if inputs.documents:
                total += Work(passages.tokens(rows, inputs.documents), rows=3 * min(passages.MOST, len(rows.test)))
    return total


def measure(inputs: Inputs, share: float = 1.0) -> Suite:
    """Questions with true and false answers, false premises, and on the user's rows abstention, passages, agreement."""
    if inputs.model is None:
        return Suite("truth", [], [NO_MODEL])
    parts = [truths.measure(inputs.model, each, share) for each in inputs.claims]
    left_out = [] if inputs.claims else ["TruthfulQA and HaluEval: name their files with --questions"]
    parts.append(premises.measure(inputs.model, share))
    rows, answering, abstention = inputs.rows, inputs.answering, None
    if rows is None or answering is None or not answering.has_model:
        return Suite("truth", parts, [*left_out, f"when to abstain, self-consistency, documents: {NO_ROWS}"])
    if rows.calibrate:
        part, abstention = abstain.measure(answering, rows, share)
        parts.append(part)
    if answering.has_labels or answering.has_questions:
        left_out.append("self-consistency and documents: a label is chosen, not written")
    else:
        parts.append(consistency.measure(answering, rows, share))
        if inputs.documents:
            parts.append(passages.measure(answering, rows, inputs.documents, share))
        else:
            left_out.append("documents: name them with --documents, and rows with a field doc_id")
    return Suite("truth", parts, left_out, abstention=abstention)
