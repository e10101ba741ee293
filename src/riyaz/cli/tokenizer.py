"""`riyaz tokenizer`: trains a tokenizer on text and writes a folder that riyaz and transformers read."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError

Texts = Annotated[
    Path, Parameter(name="TEXT", help="text and Markdown files, .jsonl with a text column, each also .gz, or folders")
]
OWN = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}  # files that may be overwritten
EXAMPLE = "The quick brown fox jumps over the lazy dog."


def tokenizer(
    *text: Texts,
    vocab: Annotated[
        int, Parameter(help="size of a bpe vocabulary, including the 256 bytes and the end of text")
    ] = 4096,
    kind: Annotated[
        Literal["bpe", "bytes", "chars"],
        Parameter(help="pieces of words, one token per byte, or one per character of the text"),
    ] = "bpe",
    out: Annotated[Path, Parameter(help="folder to write")],
    json: Json = False,
) -> None:
    """Make a tokenizer from text: pieces of words (byte-level BPE), bytes or characters."""
    from riyaz.data.corpus import documents
    from riyaz.pretraining.tokenizer_training import bytes_per_token, train_tokenizer

    if not text:
        raise RiyazError("TEXT is missing", hint="see riyaz tokenizer --help")
    if out.exists() and not (out.is_dir() and OWN.issuperset(path.name for path in out.iterdir())):
        what = "holds other files" if out.is_dir() else "is a file"
        raise RiyazError(what, str(out), "choose another --out")
    if not out.parent.is_dir():
        raise RiyazError("the folder does not exist", str(out.parent), "create it or choose another --out")
    screen = Screen(json)
    read = list(documents(text))
    texts = [document.text for document in read]
    made = train_tokenizer(texts, kind, vocab, out)
    ratio, size = bytes_per_token(made, texts), sum(len(one.encode()) for one in texts)
    files = len({document.file for document in read})
    pieces = [made.token_text(number) for number in made.encode(EXAMPLE)]
    counted = f"{files:,} file{'' if files == 1 else 's'} ({size / 1e6:,.1f} MB)"
    screen.data.print(
        f"{made.vocab_size:,} tokens from {counted} in {out}; {ratio:.2f} bytes per token", soft_wrap=True
    )
    screen.data.print("example: " + "|".join(pieces), soft_wrap=True)
    screen.finish(
        {"out": out, "kind": kind, "vocab": made.vocab_size, "files": files, "documents": len(read), "bytes": size}
        | {"bytes_per_token": ratio, "example": pieces}
    )
