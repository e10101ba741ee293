"""What every suite asks of a model: the log-probability of sentences and of given answers, and its own answers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from riyaz.artifact import TextPart
from riyaz.data import Message
from riyaz.engine.request import Request
from riyaz.metrics.calibration import LEAST
from riyaz.predictor import FreePredictor, ModelPredictor, Prediction, PromptedModel

SHARED = 16  # tokens of a prompt from which on its answers share it as a prefix
TEMPLATE = 512  # tokens that a chat template writes around a question, at most: shorter texts need not be counted


def plain(model: PromptedModel) -> FreePredictor:
    """The same weights without the artifact's instruction, examples and documents."""
    bare = replace(PromptedModel(**model.parts()), text=TextPart(), task=None, examples=(), retriever=None, head=None)
    return FreePredictor(**bare.parts(), max_new_tokens=min(256, max(1, model.lm.context // 2)))


def first_token(model: PromptedModel) -> tuple[int, ...]:
    """The token before a plain text: the one its tokenizer begins with, else the one that ends a text."""
    return model.tokenizer.beginning or (model.tokenizer.end_of_text,)


def text_nats(model: PromptedModel, texts: Sequence[str], after: Sequence[str] = ()) -> np.ndarray:
    """Log-probability (n,) of each whole text in nats, without a chat template; of what follows `after` where given."""
    before = list(after) or [""] * len(texts)
    ids = model.tokenizer.encode_all([first + text for first, text in zip(before, texts, strict=True)])
    heads = model.tokenizer.encode_all(before) if after else [[] for _ in texts]
    requests, rest = [], []
    for row, (head, whole) in enumerate(zip(heads, ids)):
        shared = next((i for i, (a, b) in enumerate(zip(head, whole)) if a != b), min(len(head), len(whole)))
        requests.append(Request(row, (*first_token(model), *whole[:shared]), adapter=model.adapter))
        rest.append(whole[shared:])
    return np.array([float(part.sum(dtype=np.float64)) for part in model.lm.logprobs(requests, rest)])


def fitting_texts(model: PromptedModel, texts: Sequence[str]) -> list[bool]:
    """Which plain texts fit the context."""
    room = model.context
    return [len(text.encode()) < room or len(model.tokenizer.encode(text)) < room for text in texts]


def fitting(
    model: PromptedModel, conversations: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]
) -> list[int]:
    """Places of the conversations that fit the context with the longest of their answers."""
    room = model.context

    def fits(messages: Sequence[Message], choices: Sequence[str]) -> bool:
        size = sum(len(turn["content"].encode()) for turn in messages) + max(len(text.encode()) for text in choices)
        if TEMPLATE + size <= room:
            return True
        (prompt,) = model.tokenizer.render(model.conversations([messages]))
        return len(prompt) + max(map(len, model.tokenizer.answer_ids(list(choices)))) <= room

    return [place for place, each in enumerate(zip(conversations, answers, strict=True)) if fits(*each)]


def answer_nats(
    model: PromptedModel, conversations: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """Log-probabilities in nats of the given answers to each conversation, end token included: one (k_i,) array each.

    The prompt is that of the model's chat template and text part; it is read once for all its answers.
    """
    ids = [model.tokenizer.answer_ids(list(choices)) for choices in answers]
    room = max((len(each) for choices in ids for each in choices), default=1)
    prepared = model.prepare(conversations, room=room)
    requests: list[Request] = []
    rest: list[Sequence[int]] = []
    for each, choices in zip(prepared, ids, strict=True):
        prompt = (*each.request.prefix, *each.request.tokens)
        cut = len(prompt) - 1 if len(prompt) > SHARED and len(choices) > 1 else 0
        for tokens in choices:
            requests.append(replace(each.request, id=len(requests), prefix=prompt[:cut], tokens=prompt[cut:]))
            rest.append(tokens)
    flat = [float(part.sum(dtype=np.float64)) for part in model.lm.logprobs(requests, rest)]
    ends = np.cumsum([len(choices) for choices in ids])
    return [np.array(flat[end - len(choices) : end]) for end, choices in zip(ends, ids)]


def answers_with_nats(
    predictor: ModelPredictor, conversations: Sequence[Sequence[Message]], where: Sequence[str] = ()
) -> tuple[list[str], np.ndarray]:
    """The model's own answers, and how sure it is of each, (n,)."""
    predictions = predictor.answers(conversations, where)
    return [each.text for each in predictions], nats_of(predictor, predictions, conversations, where)


def nats_of(
    predictor: ModelPredictor, predictions: Sequence[Prediction], conversations: Sequence[Sequence[Message]],
    where: Sequence[str] = (),
) -> np.ndarray:  # fmt: skip
    """How sure the model is of its answers, (n,): the logarithm of a label's confidence, the log-probability of a span
    or of a label without one, and of a generated answer the mean over its tokens, end token included."""
    nats = np.array([np.nan if each.log_probability is None else each.log_probability for each in predictions])
    sure = np.array([np.nan if each.confidence is None else each.confidence for each in predictions], float)
    nats = np.where(np.isnan(sure), nats, np.log(np.maximum(sure, LEAST)))
    free = [i for i, each in enumerate(predictions) if each.log_probability is None]
    if free:
        limit = predictor.max_new_tokens
        ids = [tokens[:limit] for tokens in predictor.tokenizer.answer_ids([predictions[i].text for i in free])]
        chats = [conversations[i] for i in free]
        prepared = predictor.prepare(chats, [where[i] for i in free] if where else ())
        parts = predictor.lm.logprobs([each.request for each in prepared], ids)
        nats[free] = [float(part.mean(dtype=np.float64)) for part in parts]
    return nats
