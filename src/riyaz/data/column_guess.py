"""A prompt and an answer column by what the columns hold, where no pair of names is known.

A guess is plain where two columns of text are left: a name says on which side a column stands, the answer has few short
values, or the prompt comes first. Numbers, dates, identifiers and columns named as properties of a row are no text.
"""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from riyaz.data.tables import Table, kind_of

LABELS = 200  # most distinct answers of a closed set
ROWS_PER_LABEL = 3  # fewest rows per distinct answer there, on average
LABEL_CHARACTERS = 60  # longest answer there
LEAST_ROWS = 8  # fewer say nothing about what a column holds
FILLED = 0.5  # least share of the rows in which a column holds something
LETTERS = 0.25  # least share of letters among the letters and digits of a text
IDENTIFIER = re.compile(r"(?:[A-Z]{1,5}\s+)?\S*(?:\d|@|://)\S*")  # T-17, a@b.de, AB 1701
ID_CHARACTERS = 40  # longest identifier of another form
NAME_PARTS = re.compile(r"[^\W_]+")
TEXT_WORDS = 3  # fewest words of a value, on average, that make a property of a row a text
HEADER_WORDS = 3  # most words of a column's name
RESERVED = frozenset({"slice", "doc_id", "doc_ids", "system", "tools", "functions", "tests"})
# Names, case folded, of what a row is about or where it is from: no prompt and no answer unless sentences stand there.
PROPERTIES = frozenset({"split", "author", "user", "username", "lang", "language", "locale", "source", "url"})
IDS = frozenset({"id", "ids", "uuid", "guid"})  # also as parts of a name
REFERENCES = frozenset({"ref", "reference"})  # names of an answer or of an identifier
# Names, case folded, that say on which side a column stands, beside those of a known pair.
PROMPT_NAMES = frozenset((
    "utterance", "message", "review", "tweet", "comment", "subject", "body", "email", "ticket", "request", "src", "mr",
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
    """The likeliest columns, "" for one that is not there.

    `plain`: no other pair is as likely; `named`: the names alone say so."""

    prompt: str
    answer: str
    plain: bool
    named: bool = False


@dataclass(frozen=True)
class _Column:
    name: str
    few: bool  # few distinct short values
    ids: bool  # named as an answer, but every value is an identifier
    length: float  # mean characters of a value


def few_short_values(values: Iterable[str]) -> bool:
    """Whether the values can be labels: few different ones, which repeat and are short."""
    distinct, count = set[str](), 0
    for value in values:
        count += 1
        distinct.add(value)
        if len(distinct) > LABELS:
            return False
    return bool(distinct) and count >= ROWS_PER_LABEL * len(distinct) and max(map(len, distinct)) <= LABEL_CHARACTERS


def guess(
    table: Table, prompt: str, answer: str, known_prompts: Collection[str], known_answers: Collection[str],
    beside: Collection[str], answers_required: bool,
) -> Guess:  # fmt: skip
    """The columns of prompt and answer; `prompt` and `answer` are given ones, or "".

    `known_prompts` and `known_answers` are the names of known pairs, `beside` columns that belong to another prompt.
    """
    prompts, answers = {*known_prompts, *PROMPT_NAMES}, {*known_answers, *ANSWER_NAMES}
    texts = [column for name in table.columns if (column := _text_column(table, name, answers))]
    texts = [column for column in texts if column.name not in beside or column.name in (prompt, answer)]
    fixed = (prompt, answer)
    prompt, answer = prompt or _only(texts, prompts, answer), answer or _only(texts, answers, prompt)
    named = bool(prompt and answer)
    enough = len(table.rows) >= LEAST_ROWS
    if not answer and (enough or prompt):
        answer = _answer(texts, prompt)
    if not prompt and (enough or answer or (len(texts) == 1 and not answers_required)):
        prompt = _prompt(texts, answer)
    if not prompt and not answer and enough and len(texts) == 2 and not any(column.few for column in texts):
        prompt, answer = (column.name for column in texts)
    plain = bool(prompt) and (bool(answer) or not answers_required) and not headless(table)
    crossed = not any(fixed) and _crossed(prompt, answer, prompts, answers)
    if plain and not crossed and not _rivals(texts, prompt, answer, fixed[1], answers_required):
        return Guess(prompt, answer, True, named)
    return Guess(*_likeliest(texts, *fixed, table, prompts, answers), False)


def headless(table: Table) -> bool:
    """Whether the names of the columns look like the values of a row, as in a table without a header."""
    if kind_of(table.path) in ("", ".json", ".jsonl", ".parquet"):  # each row names its columns, or the file does
        return False
    held = {name: {row.get(name) for _, row in table.rows} for name in table.columns}
    return any(len(name.split()) > HEADER_WORDS or name.endswith("?") or name in held[name] for name in held)


def _crossed(prompt: str, answer: str, prompts: Collection[str], answers: Collection[str]) -> bool:
    """Whether the names say another side than the contents."""
    turned = bool(answer) and _side(prompt, prompts, answers) > _side(answer, prompts, answers)
    return turned or _is_named(prompt, answers) or _is_named(answer, prompts)


def _rivals(texts: Sequence[_Column], prompt: str, answer: str, answer_given: str, answers_required: bool) -> bool:
    """Whether another column may be meant; one of few values is no rival where the answer is given or not needed."""
    others = [column for column in texts if column.name not in (prompt, answer)]
    pair = [column for column in texts if column.name == answer and column.ids and not answer_given]
    return bool(pair) or any(not column.few or (answers_required and not answer_given) for column in others)


def _text_column(table: Table, name: str, answers: Collection[str]) -> _Column | None:
    """The column if it holds text, or numbers under the name of an answer; None otherwise."""
    cells = [row.get(name) for _, row in table.rows]
    filled = [value for value in cells if _present(value)]
    if name in RESERVED or len(filled) < FILLED * len(cells) or not filled:
        return None
    labels = _is_named(name, answers)
    if not all(isinstance(value, (str, int, float)) for value in filled):
        return None
    values = [str(value).strip() for value in filled]
    if _is_property(name) and sum(len(value.split()) for value in values) < TEXT_WORDS * len(values):
        return None
    few = few_short_values(values)
    identifiers = not few and _identifiers(values)
    unique = identifiers and len(values) >= LEAST_ROWS and len(set(values)) == len(values)
    if labels and unique and _is_named(name, REFERENCES):
        return None
    if not labels:
        constant = len(values) >= LEAST_ROWS and len(set(values)) == 1
        texts = sum(isinstance(value, str) and _is_text(value) for value in filled)
        if constant or identifiers or texts < len(values) / 2:
            return None
    return _Column(name, few, unique, sum(map(len, values)) / len(values))


def _identifiers(values: Sequence[str]) -> bool:
    """Whether every value has the form of an identifier, or all differ and are words of one length or count on."""
    if all(IDENTIFIER.fullmatch(value) for value in values):
        return True
    if len(values) < LEAST_ROWS or len(set(values)) < len(values) or max(map(len, values)) > ID_CHARACTERS:
        return False
    counted = len({re.sub(r"\d+", "", value) for value in values}) == 1 and len(values[0].split()) < TEXT_WORDS
    return counted or (all(value.isascii() and value.isalnum() for value in values) and len(set(map(len, values))) == 1)


def _parts(name: str) -> set[str]:
    """The words of a name, case folded: customer_message and customerMessage have two."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return {part.casefold() for part in NAME_PARTS.findall(words)}


def _is_property(name: str) -> bool:
    return _is_named(name, PROPERTIES) or bool(_parts(name) & IDS)


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


def _only(texts: Sequence[_Column], names: Collection[str], other: str) -> str:
    left = [column.name for column in texts if _is_named(column.name, names) and column.name != other]
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


def _likeliest(
    texts: Sequence[_Column], prompt: str, answer: str, table: Table, prompts: Collection[str],
    answers: Collection[str],
) -> tuple[str, str]:  # fmt: skip
    """The columns that an error proposes: those whose names say a side, else the longest text and few values."""
    sides = {column.name: _side(column.name, prompts, answers) for column in texts}
    longest = sorted(texts, key=lambda column: (sides[column.name], -column.length))
    prompt = prompt or next((c.name for c in longest if c.name != answer), "")
    rest = sorted(longest, key=lambda column: (-sides[column.name], not column.few, -column.length))
    others = [name for name in table.columns if name not in RESERVED and not _is_property(name)]
    names = [column.name for column in rest] + others
    return prompt, answer or next((name for name in names if name != prompt), "")


def _side(name: str, prompts: Collection[str], answers: Collection[str]) -> int:
    """-1 for a name of the prompt, 1 for one of the answer, also as a part of it; 0 for others."""
    words = {name.strip().casefold(), *_parts(name)}
    return 1 if words & set(answers) else -1 if words & set(prompts) else 0
