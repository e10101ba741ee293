"""Conversations in which every answer makes a row: their rows are a group, and the number of an answer is its slice."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from riyaz.data import Example
from riyaz.data.example_stream import mapped
from riyaz.text.calls import turn_of

GROUP = "conversation "  # and the hash of its turns: the group of a conversation's rows
LATER = 4  # answers of a conversation from this one on share a slice


def of_one_conversation(examples: Sequence[Example]) -> list[Example]:
    """The examples of one conversation as a group, unless they are in one or alone. Each says which answer it is of."""
    if len(examples) < 2:
        return list(examples)
    group = examples[0].group or f"{GROUP}{examples[-1].key[:16]}"
    return [replace(each, where=f"{each.where} turn {each.turn}", group=group) for each in examples]


def by_turn(examples: Sequence[Example]) -> tuple[Sequence[Example], str]:
    """The examples with the number of their answer as slice, where conversations have several rows and rows no slices
    of their own; and a note about the conversations."""
    answers = conversations = 0
    before, has_slice = "", False
    for example in examples:  # those of a conversation follow one another
        has_slice = has_slice or example.slice is not None
        if place := conversation_of(example):
            answers += 1
            conversations += place != before
            before = place
    if not answers:
        return examples, ""
    whole = conversations + len(examples) - answers
    note = f"{whole:,} conversations with {len(examples):,} answers, each of which makes a row"
    if has_slice:
        return examples, note
    return mapped(examples, lambda example: replace(example, slice=_slice(example.turn))), note


def last_note(examples: Sequence[Example]) -> str:
    """A line about conversations of which a comparison that was begun so reads only the last answer, "" for none."""
    if not any(example.turn > 1 for example in examples):
        return ""
    return "this comparison was begun on the last answer of each conversation and goes on so; another --out reads all"


def facts_of(examples: Sequence[Example]) -> dict[str, Any]:
    """How many answers of how many conversations are learned, the most of one, the names of the tools and how many
    answers call one; empty for rows that are no conversations."""
    if not any(example.turn > 1 or example.tools for example in examples):
        return {}
    counts = Counter(conversation_of(example) or example.where for example in examples)
    names = dict.fromkeys(tool["function"]["name"] for example in examples for tool in example.tools)
    calling = sum(bool(turn_of(example.answer).get("tool_calls")) for example in examples if example.tools)
    return {
        "conversations": len(counts), "answers": len(examples), "longest": max(counts.values()), "tools": list(names),
        "calling": calling,
    }  # fmt: skip


def conversation_of(example: Example) -> str:
    """Where the conversation is of which the example is one of several answers; "" for another example."""
    mark = f" turn {example.turn}"
    return example.where.removesuffix(mark) if example.where.endswith(mark) else ""


def _slice(turn: int) -> str:
    return f"turn {turn}" if turn < LATER else f"turn {LATER} and later"
