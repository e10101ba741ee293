"""What a prompt shows that may tell its label: its words, and what stands at fixed places, such as the last word.

Letters are compared without case (NFKC), and without characters that nobody sees; what base64 hides is read too.
"""

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase, digits

from riyaz.data import Example

UNPARTED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"  # scripts without spaces: each character counts as a word
WORD = re.compile(rf"([{UNPARTED}]|[^\W_{UNPARTED}]+)")
# category: refund, "label": "refund"; the look behind keeps a long word from being read again from each of its letters
KEYED = re.compile(r"(?<![^\W_])([^\W_]+)[\]\)\"']?\s{0,2}[:=]\s{0,2}[\[\(\"'<]?([^\W_]+)")
ENCLOSED = re.compile(r"[\[({<]([^\[\](){}<>]{1,60})[\])}>]|[#@]([^\W_]+)")
ENCODED = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{3,4096}={0,2}(?![A-Za-z0-9+/=])")
CODE = re.compile(r"(?<![A-Za-z])[A-Za-z]*\d[A-Za-z0-9]*|[A-Z]{2,}")  # a word of letters and digits, or of capitals
INVISIBLE = re.compile(  # the characters that nobody sees and that change no other one, as the joiner of emoji does
    "[\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0001-\U000e007f]"
)
KINDS = {ord(sign): kind for kind, signs in (("9", digits), ("A", ascii_uppercase), ("a", ascii_lowercase))
         for sign in signs}  # fmt: skip
FROM_START = tuple(f"word {number}" for number in (1, 2, 3))
FROM_END = ("the last word", "the last word but one", "the last word but two")
LINE = 80  # characters of a line that may be a sign as a whole
MOST_CHARACTERS = 20_000  # of a prompt that are read, one half from either end


@dataclass(frozen=True)
class PromptSigns:
    """What one prompt shows: its folded words in their order, what stands between them (words + 1), the words that
    base64 hides in it, and what stands at each place."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]
    hidden: tuple[str, ...]
    places: dict[str, str]  # place, in words that a message uses -> content


def text_of(example: Example) -> str:
    """All turns of a row, one below the other, without what is behind MOST_CHARACTERS in the middle."""
    text = "\n".join(str(turn.get("content") or "") for turn in example.messages)
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def folded(text: str) -> str:
    """The text without case and without characters that cannot be seen."""
    if text.isascii():
        return text.casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).casefold())


def unvaried(text: str) -> str:
    """The text without the characters that choose between a coloured and a plain form of the one before."""
    return text if text.isascii() else text.replace("\ufe0e", "").replace("\ufe0f", "")


@lru_cache(maxsize=65536)
def words_of(text: str) -> tuple[str, ...]:
    """The folded words of a short text, such as a label; one without letters and digits has none."""
    return tuple(WORD.findall(folded(text)))


def prompt_signs(text: str) -> PromptSigns:
    """The signs of a prompt."""
    plain = folded(text)
    parts = WORD.split(plain)  # what is between the words, and the words, in turn
    words, hidden = tuple(parts[1::2]), _hidden(text)
    return PromptSigns(words, tuple(parts[::2]), hidden, _places(text, plain, words, hidden))


def _places(text: str, plain: str, words: tuple[str, ...], hidden: tuple[str, ...]) -> dict[str, str]:
    """What stands at each place of a text, which is `plain` once it is folded."""
    places = dict(zip(FROM_START, words)) | dict(zip(FROM_END, reversed(words)))
    if hidden:
        places["what is written in base64"] = " ".join(hidden)
    if "\n" in plain:
        lines = plain.strip().split("\n")
        ends = (("the first line", lines[0].strip()), ("the last line", lines[-1].strip()))
        places |= {name: line for name, line in ends if len(line) <= LINE}
    for match in KEYED.finditer(plain) if ":" in plain or "=" in plain else ():
        places[f"what stands behind {match[1]!r}"] = match[2]
    for match in ENCLOSED.finditer(plain):
        places["what stands in brackets or behind # or @"] = match[1] or match[2]
    codes = CODE.findall(text)
    if codes:
        places |= _of_code("the first code", codes[0]) | _of_code("the last code", codes[-1])
    if not text.isascii() and (unseen := INVISIBLE.findall(text)):
        places["characters that cannot be seen"] = " ".join(f"{ord(letter):x}" for letter in unseen)
    if ending := text[len(text.rstrip()) :]:
        places["the white space at the end"] = ending
    return places


def _of_code(name: str, code: str) -> dict[str, str]:
    """The parts of a code, such as TX1039b, that may tell a label."""
    return {
        f"the letters of {name}": code.strip(digits),
        f"the first character of {name}": code[0],
        f"the last character of {name}": code[-1],
        f"the kinds of characters of {name}": code.translate(KINDS),
    }


def _hidden(text: str) -> tuple[str, ...]:
    """The folded words that base64 hides in a text; what is written as words and numbers are is not decoded."""
    words: list[str] = []
    for chunk in ENCODED.findall(text):
        if (chunk.isalpha() and (chunk.islower() or chunk.istitle() or chunk.isupper())) or chunk.isdigit():
            continue
        bare = chunk.rstrip("=")
        try:
            plain = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        if plain.isprintable():
            words += WORD.findall(folded(plain))
    return tuple(words)
