"""Typed questions that the columns of a table suggest: a predicate for yes and no, a score for a few whole numbers, a
choice for other values that repeat. Their wording is a beginning, for the user to improve."""

import math
from collections.abc import Sequence

from riyaz.data.column_guess import IDS, PROPERTIES, RESERVED, few_short_values
from riyaz.data.column_roles import ANSWERS, CONVERSATIONS, PROMPTS
from riyaz.data.questions import MOST_CHOICES, TRUE_FALSE, WHOLE, YES_NO, Choice, Question
from riyaz.data.tables import Table

MOST_LEVELS = 11  # of a score, as from 0 to 10
NO_QUESTION = {*RESERVED, *PROPERTIES, *IDS, *CONVERSATIONS}  # names, case folded, of columns that say no answer


def offered(table: Table) -> tuple[Question, ...]:
    """The questions that the columns with few different values suggest, in the columns' order."""
    prompts = {*PROMPTS} - {*ANSWERS}
    columns = [name for name in table.columns if name.strip().casefold() not in NO_QUESTION and name not in prompts]
    each = (_question(name, [row.get(name) for _, row in table.rows]) for name in columns)
    return tuple(question for question in each if question is not None)


def _question(column: str, cells: Sequence[object]) -> Question | None:
    """The question to which a column's cells are the answers; None where they are too many, or not alike."""
    filled = [cell for cell in cells if cell not in (None, "") and not (isinstance(cell, float) and math.isnan(cell))]
    if not filled or not all(isinstance(cell, (str, int, float)) for cell in filled):
        return None
    values = [str(cell).lower() if isinstance(cell, bool) else str(cell).strip() for cell in filled]
    values = [whole[1] if (whole := WHOLE.fullmatch(value)) else value for value in values]
    distinct = sorted({value for value in values if value})
    if len(distinct) < 2 or len(distinct) > MOST_CHOICES or not few_short_values(values):
        return None
    if {YES_NO.get(value.casefold()) for value in distinct} == {0, 1}:
        return Question(column, "predicate", f"Is it {column}?", TRUE_FALSE, column)
    if levels := _levels(distinct):
        return Question(column, "score", f"How much {column}?", tuple(map(Choice, levels)), column)
    return Question(column, "choice", f"Which {column}?", tuple(map(Choice, distinct)), column)


def _levels(values: Sequence[str]) -> list[str]:
    """Every whole number from the lowest to the highest of the values; none if these are no such numbers, or reach too
    far."""
    try:
        numbers = [int(value) for value in values]
    except ValueError:
        return []
    if [str(number) for number in numbers] != list(values) or max(numbers) - min(numbers) >= MOST_LEVELS:
        return []
    return [str(number) for number in range(min(numbers), max(numbers) + 1)]
