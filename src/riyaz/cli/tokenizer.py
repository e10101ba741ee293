"""`riyaz tokenizer`: a vocabulary from texts, as a folder that every model of riyaz and transformers can use."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError

SHOWN = 60  # characters of the text that are shown cut into tokens


def tokenizer(
    *text: Annotated[
        Path, Parameter(help="text and Markdown files, .jsonl with a text column, each also with .gz, or folders")
    ],
    vocab: Annotated[int, Parameter(help="tokens of a bpe vocabulary, the 256 bytes included")] = 4096,
    kind: Annotated[
        Literal["bpe", "bytes", "chars"],
        Parameter(help="pieces of words, or a token for each byte, or for each character of the text"),
    ] = "bpe",
    out: Annotated[Path, Parameter(help="folder to write")],
    json: Json = False,
) -> None:
    """Make a tokenizer from text: byte-level BPE, bytes or characters."""
    from riyaz.data.corpus import documents
    from riyaz.tokenizer_training import train_tokenizer

    if not text:
        raise RiyazError("TEXT is missing", hint="see riyaz tokenizer --help")
    screen = Screen(json)
    read = list(documents(text))
    made = train_tokenizer((document.text for document in read), kind, vocab, out)
    screen.finish({"out": out, "kind": kind, "vocab": made.vocab_size})
