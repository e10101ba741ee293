"""The process that tries a stranger's tokenizer: `python -m riyaz.text.tokenizer_worker`, started by
sources/tokenizer_check.py.

A tokenizer.json holds regular expressions, which can need time without end. This process limits its time and memory,
reads the file on stdin, tokenises ordinary texts with it and writes "ok"; or it dies. Only the standard library and
`tokenizers` are imported.
"""

import os
import string
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers

from riyaz.confined import confine, limit_cpu

MEMORY_MIB, MEMORY_PER_BYTE = 2048, 32  # a vocabulary takes many times the memory of its file
LOAD_SECONDS, SECONDS = 60, 5  # of CPU time: to load the largest real file, and to tokenise the texts, which takes 0.1
RUN = 200  # characters
PROSE = """The baker opens at seven; by nine the rolls are gone. "Where is my parcel?" she asked for the 3rd time.
In 1969, 3 + 4 was still 7 (e.g. 0x1F, 1e-9, 12:30, $4.50, 100%, a_b-c/d\\e@f.org). def area(r): return {"r": r ** 2}
Ünïcödé naïve cafe\u0301 — नमस्ते दुनिया, 東京都の天気、안녕하세요, Привет мир, مرحبا بالعالم \ufdfa,
👩‍👩‍👧‍👦 🙂🏽\u200b\u00a0\ufeff"""
TEXTS = (
    PROSE,
    *(character * RUN + end for character in string.printable + "é中🙂" for end in ("", "!", "b")),
    "ab" * RUN, "a b " * RUN, "a1" * RUN, "it's " * RUN, "\r\n \t" * RUN, string.ascii_letters * 4,
)  # fmt: skip


def main() -> None:
    """Tries the tokenizer on stdin."""
    content = sys.stdin.buffer.read()
    confine(MEMORY_MIB + MEMORY_PER_BYTE * len(content) // 2**20)
    limit_cpu(LOAD_SECONDS)
    try:
        backend = tokenizers.Tokenizer.from_str(content.decode())
    except Exception:  # whoever opens it gets the same error
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    limit_cpu(SECONDS)
    for text in TEXTS:
        try:
            backend.decode(backend.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
        except Exception:  # such as a character outside the vocabulary
            continue
    sys.stdout.write("ok\n")


if __name__ == "__main__":
    main()
