"""Hallucination: does a model know when it does not know, and does it say what its passages say?"""

from riyaz.limits import truths
from riyaz.limits.inputs import NO_MODEL, Inputs, Work
from riyaz.results import Suite

SMALL = 2.5  # the answers to one question are read together, which is slower than full batches


def work(inputs: Inputs) -> Work:
    """The tokens of all questions with their answers."""
    if inputs.model is None:
        return Work()
    return Work(SMALL * sum(map(len, inputs.model.tokenizer.encode_all(truths.texts(inputs.claims)))))


def measure(inputs: Inputs, share: float = 1.0) -> Suite:
    """Questions with true and false answers."""
    if inputs.model is None:
        return Suite("truth", [], [NO_MODEL])
    left_out = [] if inputs.claims else ["TruthfulQA and HaluEval: name their files with --questions"]
    return Suite("truth", [truths.measure(inputs.model, each, share) for each in inputs.claims], left_out)
