"""A prompt and an answer column by what the columns hold, where no pair of names is known.

A guess is plain where one pair is left: a column's name says on which side it stands, the answer is the one column of
few short values, or there are two columns of text. Numbers, dates and identifiers are no text.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from riyaz.data.tables import Table, kind_of

LABELS = 200  # most distinct answers of a closed set
ROWS_PER_LABEL = 3  # fewest rows per distinct answer there, on average
LABEL_CHARACTERS = 60  # longest answer there
LEAST_ROWS = 8  # fewer say nothing about what a column holds
FILLED = 0.5  # least share of the rows in which a column holds something
LETTERS = 0.25  # least share of letters among the letters and digits of a text
IDENTIFIER = re.compile(r"\S*(?:\d|@|://)\S*")
HEADER_WORDS = 3  # most words of a column's name
RESERVED = frozenset({"slice", "doc_id", "doc_ids", "system", "tools", "functions"})
# Names, case folded, that say on which side a column stands, beside those of a known pair.
PROMPT_NAMES = frozenset((
    "utterance", "message", "review", "tweet", "comment", "body", "email", "ticket", "request", "src", "mr",
    "frage", "nachricht", "anfrage", "eingabe", "texte", "entrée", "pregunta", "mensaje", "texto",
    "domanda", "testo", "messaggio",
))  # fmt: skip
ANSWER_NAMES = frozenset((
    "reply", "target", "tgt", "ref", "reference", "class", "sentiment", "translation",
    "antwort", "kategorie", "klasse", "ausgabe", "zusammenfassung", "réponse", "catégorie", "étiquette", "classe",
    "résumé", "respuesta", "categoría", "etiqueta", "clase", "resumen", "risposta", "categoria", "etichetta",
    "riassunto",
))  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """The likeliest columns, "" for one that is not there; `plain`: no other pair is as likely."""

    prompt: str
    answer: str
    plain: bool


@dataclass(frozen=True)
class _Column:
    name: str
    few: bool  # few distinct short values
    length: float  # mean characters of a value


def few_short_values(values: Sequence[str]) -> bool:
    """Whether the values can be labels: few different ones, which repeat and are short."""
    distinct = set(values)
    return (
        0 < len(distinct) <= LABELS
        and len(values) >= ROWS_PER_LABEL * len(distinct)
        and max(map(len, distinct)) <= LABEL_CHARACTERS
    )


def guess(
    table: Table, prompt: str, answer: str, known_prompts: Collection[str], known_answers: Collection[str],
    beside: Collection[str], answers_required: bool,
) -> Guess:  # fmt: skip
    """The columns of prompt and answer; `prompt` and `answer` are given ones, or "".

    `known_prompts` and `known_answers` are the names of known pairs, `beside` columns that belong to another prompt.
    """
    texts = [column for name in table.columns if (column := _text_column(table, name, known_answers))]
    texts = [column for column in texts if column.name not in beside or column.name in (prompt, answer)]
    asked = [_named(texts, {*known_prompts, *PROMPT_NAMES}), _named(texts, {*known_answers, *ANSWER_NAMES})]
    prompt, answer = prompt or _only(asked[0], answer), answer or _only(asked[1], prompt)
    enough = len(table.rows) >= LEAST_ROWS
    if not answer and (enough or prompt):
        answer = _answer(texts, prompt)
    if not prompt and (enough or answer or (len(texts) == 1 and not answers_required)):
        prompt = _prompt(texts, answer)
    if not prompt and not answer and enough and len(texts) == 2 and not any(column.few for column in texts):
        prompt, answer = (column.name for column in texts)
    plain = bool(prompt) and (bool(answer) or not answers_required) and not headless(table)
    return Guess(prompt, answer, True) if plain else Guess(*_likeliest(texts, prompt, answer, table), False)


def headless(table: Table) -> bool:
    """Whether the names of the columns look like the values of a row, as in a table without a header."""
    if kind_of(table.path) in ("", ".json", ".jsonl", ".parquet"):  # each row names its columns, or the file does
        return False
    held = {name: {row.get(name) for _, row in table.rows} for name in table.columns}
    return any(len(name.split()) > HEADER_WORDS or name.endswith("?") or name in held[name] for name in held)


def _text_column(table: Table, name: str, known_answers: Collection[str]) -> _Column | None:
    """The column if it holds text, or numbers under the name of an answer; None otherwise."""
    found = [row.get(name) for _, row in table.rows]
    filled = [value for value in found if _present(value)]
    if name in RESERVED or len(filled) < FILLED * len(found) or not filled:
        return None
    labels = _is_named(name, {*known_answers, *ANSWER_NAMES})
    if not all(isinstance(value, (str, int, float)) for value in filled):
        return None
    values = [str(value).strip() for value in filled]
    few = few_short_values(values)
    if not labels:
        constant = len(values) >= LEAST_ROWS and len(set(values)) == 1
        identifiers = not few and all(IDENTIFIER.fullmatch(value) for value in values)
        texts = sum(isinstance(value, str) and _is_text(value) for value in filled)
        if constant or identifiers or texts < len(values) / 2:
            return None
    return _Column(name, few, sum(map(len, values)) / len(values))


def _present(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _is_text(value: str) -> bool:
    """Whether letters are a part of the value that counts, as in no number, date or time."""
    letters, digits = sum(map(str.isalpha, value)), sum(map(str.isdigit, value))
    return letters >= LETTERS * (letters + digits)


def _is_named(name: str, names: Collection[str]) -> bool:
    return name.strip().casefold() in names


def _named(texts: Sequence[_Column], names: Collection[str]) -> list[str]:
    return [column.name for column in texts if _is_named(column.name, names)]


def _only(names: Sequence[str], other: str) -> str:
    left = [name for name in names if name != other]
    return left[0] if len(left) == 1 else ""


def _answer(texts: Sequence[_Column], prompt: str) -> str:
    """The only other text beside a known prompt, else the only column of few values."""
    others = [column for column in texts if column.name != prompt]
    if prompt and len(others) == 1:
        return others[0].name
    few = [column.name for column in others if column.few]
    return few[0] if len(few) == 1 else ""


def _prompt(texts: Sequence[_Column], answer: str) -> str:
    """The only other text beside a known answer, else the only column of many values."""
    others = [column for column in texts if column.name != answer]
    many = [column.name for column in others if not column.few]
    return others[0].name if len(others) == 1 else many[0] if len(many) == 1 else ""


def _likeliest(texts: Sequence[_Column], prompt: str, answer: str, table: Table) -> tuple[str, str]:
    """The columns that an error proposes: the longest text as the prompt, few values as the answer."""
    longest = sorted(texts, key=lambda column: -column.length)
    prompt = prompt or next((c.name for c in longest if c.name != answer), "")
    rest = sorted((column for column in longest if column.name != prompt), key=lambda column: not column.few)
    names = [column.name for column in rest] + [name for name in table.columns if name not in RESERVED]
    return prompt, answer or next((name for name in names if name != prompt), "")
