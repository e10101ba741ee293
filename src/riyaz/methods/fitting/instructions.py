"""The instructions that `instruct` tries: the task's own, the user's others, wordings of ours, and some that the model
writes itself from training rows (APE: Zhou et al. 2023, arXiv 2211.01910)."""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from riyaz.artifact import TextPart
from riyaz.config import Kind
from riyaz.data import Example
from riyaz.data.sampling import ordered
from riyaz.data.task import INSTRUCTION
from riyaz.engine.request import Sampling
from riyaz.methods.fitting.base import Context
from riyaz.predictor import ModelPredictor, PromptedModel

MOST = 24  # instructions that are tried
WRITTEN, SHOWN = 6, 4  # that the model writes, at most, and rows that it sees for each
LONGEST_SHOWN, LONGEST_WRITTEN = 300, 64  # characters of a text in such a row, and tokens of an instruction
SHORTEST_WORDS = 3  # fewer are no instruction
WRITING = Sampling(temperature=0.8, top_p=0.95)
ASKED = "What instruction did this person follow? Write it as one sentence, without any of the examples."
LIST_SHARE = 0.25  # largest share of the context that an instruction may take
TAG = re.compile(r"^(\d+[.)]\s*|[-*]\s+|(instruction|answer|output|input)s?\s*:\s*)+", re.IGNORECASE)
ABOUT_ITSELF = re.compile(r"\b(instruct\w*|persons?|examples?)\b", re.IGNORECASE)  # no instruction, but talk of one
# Wordings by the kind of answers: the role, the form of the answer and the steps are put around the task's own
# instruction, the others stand in its place. {words} is the median length of the training answers.
ROLES: dict[Kind, str] = {
    "closed": "You are an expert who sorts texts without mistakes.",
    "short": "You are an expert who answers briefly and exactly.",
    "free": "You are an expert in this work and write only what is needed.",
}
FORMS: dict[Kind, str] = {
    "closed": "Reply with the label alone, without any other word.",
    "short": "Reply with the answer alone, not with a sentence.",
    "free": "Write about {words} words and nothing else.",
}
STEPS: dict[Kind, str] = {
    "closed": "Read the text, decide what its writer wants, then choose.",
    "short": "Find out what is asked, then give the answer.",
    "free": "Read everything first, then write the answer as a whole.",
}
OTHERS: dict[Kind, tuple[str, ...]] = {
    "closed": ("What is this text about?", "Name the category of the text.", "Which label fits this text best?"),
    "short": ("Give the shortest correct answer.", "Answer with a name, a number or a few words from the question."),
    "free": ("Write the best possible answer.", "Answer in one sentence.", "Answer plainly and to the point."),
}


@dataclass(frozen=True)
class Instruction:
    """An instruction to try, who has written it, and whether the labels are listed behind it."""

    text: str
    origin: str  # "task", "yours", "riyaz" or "model"
    list_labels: bool = False


def instructions(context: Context, plain: ModelPredictor) -> list[Instruction]:
    """Different instructions, MOST at most, the task's own first; those too long for the prompt are left out."""
    kinds = (_own(context), _yours(context), _wordings(context), _written(context, plain))
    every = dict.fromkeys(each for kind in kinds for each in kind)
    unlike = {(bare(each.text), each.list_labels): each for each in reversed(every)}
    longest = LIST_SHARE * plain.lm.context
    tokens = context.tokenizer.encode_all([_whole(context, each) for each in every])
    fitting = [each for each, ids in zip(every, tokens) if len(ids) <= longest]
    return [each for each in fitting if unlike[bare(each.text), each.list_labels] is each][:MOST]


def _own(context: Context) -> Iterator[Instruction]:
    yield Instruction(context.task.instruction, "task")
    if context.task.labels:
        yield Instruction(context.task.instruction, "task", list_labels=True)


def _yours(context: Context) -> Iterator[Instruction]:
    for text in context.instructions:
        yield Instruction(text, "yours")


def _wordings(context: Context) -> Iterator[Instruction]:
    """The task's own instruction with a role, a form or steps, and other ones in its place."""
    kind, own = context.task.kind, context.task.instruction or INSTRUCTION[context.task.kind]
    words = round(statistics.median(len(example.answer.split()) for example in context.train))
    form = FORMS[kind].format(words=max(1, words))
    described = _described(context) if kind == "closed" else ""
    for text in (f"{own} {form}", f"{ROLES[kind]} {own}", f"{own} {STEPS[kind]}", f"{ROLES[kind]} {own} {form}",
                 *OTHERS[kind], form, *([described] if described else []), ""):  # fmt: skip
        yield Instruction(text.strip(), "riyaz")
    if context.task.labels:
        yield Instruction(f"{ROLES[kind]} {own}".strip(), "riyaz", list_labels=True)


def _described(context: Context) -> str:
    """The task's instruction with every label and the shortest training text that has it."""
    shortest: dict[str, str] = {}
    for example in context.train:
        text = " ".join(example.prompt.split())
        if len(text) <= LONGEST_SHOWN and len(text) < len(shortest.get(example.answer, "x" * LONGEST_SHOWN)):
            shortest[example.answer] = text
    lines = [f"{label}: such as “{shortest[label]}”" if label in shortest else label for label in context.task.labels]
    return "\n".join((context.task.instruction, *lines))


def _written(context: Context, plain: ModelPredictor) -> list[Instruction]:
    """What the model takes the instruction to be that somebody has followed in some of the training rows."""
    rows = ordered([row for row in context.train if len(row.prompt) + len(row.answer) <= 2 * LONGEST_SHOWN],
                   context.seed, "instructions")  # fmt: skip
    groups = [rows[i : i + SHOWN] for i in range(0, min(len(rows), WRITTEN * SHOWN), SHOWN)]
    bare = replace(PromptedModel(**plain.parts()), text=TextPart(), task=None)
    conversations = [[{"role": "user", "content": _asked(group)}] for group in groups if len(group) == SHOWN]
    if not conversations:
        return []
    prepared = bare.prepare(conversations, room=LONGEST_WRITTEN, sampling=replace(WRITING, seed=context.seed))
    answers = bare.lm.generate([each.request for each in prepared])
    texts = [_sentence(bare.text_of(ids, LONGEST_WRITTEN)) for ids in answers]
    shown = {example.answer for group in groups for example in group}
    usable = [text for text in texts if len(text.split()) >= SHORTEST_WORDS and text not in shown]
    return [Instruction(text, "model") for text in usable if ABOUT_ITSELF.search(text) is None]


def _asked(rows: Sequence[Example]) -> str:
    shown = "\n\n".join(f"Input: {row.prompt}\nOutput: {row.answer}" for row in rows)
    return f"{shown}\n\n{ASKED}"


def _sentence(text: str) -> str:
    """The first line of what a model wrote, without quotation marks and the words before it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return TAG.sub("", line).strip(" \"'“”*")


def _whole(context: Context, instruction: Instruction) -> str:
    labels = "\n".join(context.task.labels) if instruction.list_labels else ""
    return instruction.text + labels


def bare(text: str) -> str:
    """A text without case, marks and white space, by which two instructions are the same."""
    return re.sub(r"\W", "", text).casefold()
