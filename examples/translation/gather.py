"""Sentences of programs and their translations, as rows: python examples/translation/gather.py [FOLDER] [--language de]

The texts that JupyterLab and Wagtail show, in English and in another language, are learned and tested (slice "ui");
those of Django are only tested (slice "django"): another domain. Volunteers translated them.
"""

import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gathering import Row, apart, destination, shuffled, wheel, write

WAGTAIL = ("wagtail", "8.0.1", "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c", "BSD-3-Clause")
DJANGO = ("django", "5.2", "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83", "BSD-3-Clause")
LANGUAGES = {  # the name in the instruction, the locale of the language pack, its wheel's SHA-256
    "fr": ("French", "fr-fr", "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f"),
    "de": ("German", "de-de", "b716b56f7e0c884f42152d5e36c253ea0f32ca41f99097d842d3934f4a4bc7fb"),
    "es": ("Spanish", "es-es", "8b315de006bc48d5798988cff6141f00694e411265011ea21570b4f459070381"),
    "it": ("Italian", "it-it", "7c1454449f44d635e96245af3905626f205761d304bc9537e0c77aa46634ea6a"),
}
SHORTEST, LONGEST = 4, 40  # words of the English text
TRAIN, UI, OTHER = 1500, 200, 100  # rows: to train on, and of the two slices of the test
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]\b|%\d\b|\{\w*\}")


def pairs(catalogue: bytes) -> Iterator[tuple[str, str]]:
    """Texts and their translations of a compiled gettext catalogue (.mo), without contexts; of plurals the singular."""
    order = "<" if catalogue[:4] == b"\xde\x12\x04\x95" else ">"
    count, texts, translations = struct.unpack_from(f"{order}8x3I", catalogue)
    for place in range(count):
        both = []
        for table in (texts, translations):
            length, start = struct.unpack_from(f"{order}2I", catalogue, table + 8 * place)
            both.append(catalogue[start : start + length].decode("utf-8").split("\0")[0])
        if both[0]:  # the first entry is the catalogue's own description
            yield both[0].rpartition("\x04")[2], both[1]


def row(text: str, translation: str, part: str) -> Row | None:
    """A row of a slice; None where the text is too short or long, is no sentence, or has lost a placeholder."""
    text, translation = (" ".join(each.split()) for each in (text, translation))
    slots = list(dict.fromkeys(PLACEHOLDER.findall(text)))
    plain = len(re.findall(r"[^\W\d_]{2,}", PLACEHOLDER.sub(" ", text))) >= SHORTEST - 1
    if not (SHORTEST <= len(text.split()) <= LONGEST and plain and "<" not in text and "http" not in text):
        return None
    ratio = len(translation) / len(text)
    if text == translation or not 0.5 <= ratio <= 2.5 or sorted(slots) != sorted(set(PLACEHOLDER.findall(translation))):
        return None
    return {"prompt": text, "answer": translation, "slots": slots, "slice": part}


def rows(package: zipfile.ZipFile, language: str, part: str) -> Iterator[Row]:
    """The rows of every catalogue of a language in a package."""
    where = re.compile(rf"/locale/{language}(_[A-Z]+)?/LC_MESSAGES/[\w-]+\.mo$")
    for name in sorted(package.namelist()):
        if where.search(name):
            made = (row(text, translation, part) for text, translation in pairs(package.read(name)))
            yield from (each for each in made if each)


def distinct(found: list[Row]) -> list[Row]:
    """Every English text once, with its first translation."""
    return list({each["prompt"].casefold(): each for each in reversed(found)}.values())[::-1]


def main() -> None:
    """Fetch three packages, deal their sentences, and write train.jsonl, test.jsonl and riyaz.toml."""
    choices = {"choices": sorted(LANGUAGES), "default": "fr", "help": "language to translate into (default: fr)"}
    given = destination(__file__, __doc__, language=choices)
    name, locale, sha256 = LANGUAGES[given.language]
    pack = wheel(f"jupyterlab-language-pack-{locale}", "4.5.post3", sha256, "BSD-3-Clause")
    sources = [(pack, "ui"), (wheel(*WAGTAIL), "ui"), (wheel(*DJANGO), "django")]
    found = distinct([each for package, part in sources for each in rows(package, given.language, part)])
    learned = shuffled([each for each in found if each["slice"] == "ui"])
    other = shuffled([each for each in found if each["slice"] == "django"])[:OTHER]
    test = shuffled(learned[:UI] + other)
    train = [{key: value for key, value in each.items() if key != "slice"} for each in apart(learned[UI:], test)]
    write(__file__, given.out, train=train[:TRAIN], test=test)
    settings = given.out / "riyaz.toml"
    written = re.sub(r"into \w+\.", f"into {name}.", settings.read_text(encoding="utf-8"))
    if written != settings.read_text(encoding="utf-8"):
        settings.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
