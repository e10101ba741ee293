"""An answer piece by piece, as it is made."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.data import Message
from riyaz.report.markup import printable_line
from riyaz.sentences import ended

if TYPE_CHECKING:
    from riyaz.predictor import Predictor

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def opened(target: str, max_tokens: int | None) -> "Predictor":
    """The predictor of a model or an artifact, with this limit on its answers."""
    from riyaz.predictor import open_target

    predictor = open_target(target)
    return predictor if max_tokens is None else replace(predictor, max_new_tokens=max_tokens)


def pieces(predictor: "Predictor", messages: Sequence[Message]) -> Iterator[str]:
    """The answer to a conversation in pieces, a task's in sentences; in one piece where it is chosen or copied."""
    if predictor.lm is None or predictor.constraint is not None or predictor.text.span_words:
        yield predictor.answer(messages)
        return
    assert predictor.tokenizer is not None
    ids: list[int] = []
    said = ""
    for number in predictor.lm.stream(predictor.prepare(messages), predictor.max_new_tokens):
        ids.append(number)
        text = predictor.tokenizer.decode(ids).lstrip()
        if text.endswith("\ufffd"):  # the bytes of a character may come in several tokens
            continue
        if predictor.task is not None:  # what would not be whole may have to go
            text = ended(text)
        if len(text) <= len(said):
            continue
        yield text[len(said) :]
        said = text
    text = predictor.said(ids)
    if len(text) > len(said):
        yield text[len(said) :]


def cite(screen: Screen, predictor: "Predictor", messages: Sequence[Message]) -> list[dict]:
    """Say which documents the model was given to read; their citations."""
    found = list(predictor.prepare(messages).citations) if predictor.text.passages else []
    for each in found:
        place = f"{printable_line(each['doc_id'])}, characters {each['start']:,}–{each['end']:,}"
        screen.talk.print(f"from {place}", style="dim", soft_wrap=True, markup=False)
    return found


def say(screen: Screen, parts: Iterator[str]) -> str:
    """Print the pieces as they come, without what a terminal would obey, and return the whole answer as it is."""
    answer = ""
    for part in parts:
        # a line's end of two characters may come in two pieces
        screen.data.print(part.replace("\r", ""), end="", soft_wrap=True)
        answer += part
    screen.data.print()
    return answer.strip()
