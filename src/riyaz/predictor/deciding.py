"""Any model answers any question about a text, without training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from riyaz.data import Message
from riyaz.data.questions import Question
from riyaz.engine.parts import Steps
from riyaz.engine.trie import Trie
from riyaz.metrics.calibration import probabilities
from riyaz.predictor.decided import Decided
from riyaz.predictor.prompt import PromptedModel


def deciding(
    model: PromptedModel, conversation: Sequence[Message], questions: Sequence[Question]
) -> Steps[list[Decided]]:
    """The answers to the questions about a conversation, in parts. Raises RiyazError where it does not fit the
    context."""
    decided = []
    for question in questions:
        turns = [
            *conversation[:-1],
            {"role": "user", "content": f"{conversation[-1]['content']}\n\n{question.instructions}"},
        ]
        ids = [tuple(each) for each in model.tokenizer.answer_ids(list(question.labels))]
        (prepared,) = PromptedModel(tokenizer=model.tokenizer, lm=model.lm).prepare([turns], room=max(map(len, ids)))
        scores = yield from model.lm.choosing([replace(prepared.request, constraint=Trie(ids))])
        decided.append(Decided(question, probabilities(np.asarray(scores), 1.0)[0]))
    return decided
