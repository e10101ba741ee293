"""`riyaz rag add|ask|verify`: a collection of documents in one file, searched for passages with citations."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from riyaz.cli.opened import opened
from riyaz.cli.options import Json, Quiet
from riyaz.cli.output import Screen
from riyaz.cli.stream import AtLeastOne, MaxTokens, place_of, print_stream
from riyaz.errors import RiyazError
from riyaz.events import Note, Progress
from riyaz.extras import require
from riyaz.report.media.markup import printable, printable_line

if TYPE_CHECKING:
    from riyaz.retrieval.search import Hit

EMBEDDER = "minilm"
BAR = "  │ "  # printed before every line of a document
INSTRUCTION = "Answer the question from the documents. If they do not hold the answer, say so."

Where = Annotated[Path, Parameter(help="the collection: one file, under any name")]
Source = Annotated[
    Path, Parameter(help="a folder or file of .txt .md .html .pdf .docx, or rows in .jsonl or .csv with a text column")
]
Lexical = Annotated[bool, Parameter(help="index words only, without the embedder that finds texts of similar meaning")]


def add(
    collection: Where,
    path: Source,
    /,
    *,
    lexical: Lexical = False,
    rebuild: Annotated[bool, Parameter(help="make the collection anew from these documents only")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Add documents to a collection, all or none; a changed document replaces its old version."""
    require("compare")
    from riyaz.report.comparison.terminal import listener
    from riyaz.retrieval import collection as collections
    from riyaz.retrieval.documents import read_documents

    screen = Screen(json, quiet)
    with listener(screen.talk) as listen:
        documents, notes = read_documents(path)
        for note in notes:
            listen(Note(f"note: {note}"))
        embedder = None if lexical else _embedder(EMBEDDER, "or give --lexical to index words only")

        def progress(done: int, total: int) -> None:
            listen(Progress("embed", done, total))

        done = collections.add(collection, documents, embedder, progress, rebuild=rebuild)
    counts = f"{done.added:,} documents added, {done.replaced:,} replaced, {done.unchanged:,} unchanged"
    screen.data.print(f"{counts}; {done.chunks:,} chunks written to {collection}", soft_wrap=True)
    screen.finish({"collection": collection, **asdict(done), "embedder": embedder and embedder.name, "notes": notes})


def ask(
    collection: Where,
    question: Annotated[str, Parameter(help="the question", allow_leading_hyphen=True)],
    /,
    *,
    k: Annotated[int, Parameter(name="--k", help="passages to find", validator=AtLeastOne)] = 5,
    threshold: Annotated[
        float | None, Parameter(help="least relevance of a passage; 0: show the nearest passages in any case")
    ] = None,
    model: Annotated[str | None, Parameter(help="a model or an artifact that answers from the passages")] = None,
    max_tokens: MaxTokens = None,
    json: Json = False,
) -> None:
    """Find the passages that answer a question, each with its document and place in it."""
    require("compare")
    from riyaz.predictor.prompt import expect_short
    from riyaz.retrieval.collection import Collection
    from riyaz.retrieval.search import DEPTH, Retriever, citation

    expect_short(question, "QUESTION")
    screen = Screen(json)
    held = Collection.open(collection)
    used = held.embedder
    retriever = Retriever(
        held, _embedder(used[0], "or add the documents again with --lexical --rebuild") if used else None
    )
    ranked = retriever.search([question], max(k, DEPTH))[0]
    least = retriever.threshold if threshold is None else threshold
    best = max((hit.relevance or 0.0 for hit in ranked), default=0.0)
    hits = ranked[:k] if least is None or best >= least else []
    if least is None and hits:
        line = "not calibrated: the nearest passages follow, whatever is asked; add the documents again: riyaz rag add"
        screen.talk.print(line, style="dim", soft_wrap=True)
    document: dict[str, Any] = {
        "collection": collection, "question": question, "relevance": best, "threshold": least,
        "passages": [asdict(hit) for hit in hits],
    }  # fmt: skip
    if not ranked:
        screen.data.print("no passage shares a word with the question")
    elif not hits:
        line = f"nothing relevant: the best passage has relevance {best:.2f}, and below {least:.2f} nothing here fits"
        screen.data.print(f"{line}; --threshold 0 shows the nearest", soft_wrap=True)
    elif model is not None:
        predictor = opened(screen, model)
        if not predictor.has_model:
            raise RiyazError("has no language model and reads no passages", model, "name a model or another artifact")
        text = replace(predictor.text, instruction=predictor.text.instruction or INSTRUCTION, passages=k)
        messages = [{"role": "user", "content": question}]
        stream = replace(predictor, text=text).stream(messages, max_tokens=max_tokens, passages=hits)
        document["answer"] = print_stream(screen, stream)
        hits = list(stream.passages)  # those that fitted the context
    for number, hit in enumerate(hits, 1):
        place = place_of(citation(hit))
        screen.data.print(
            Text.assemble(f"\n[{number}] ", (place, "bold"), f"  relevance {hit.relevance:.2f}"), soft_wrap=True
        )
        named, body = _headed(hit)
        if named:
            _quote(screen, printable_line(named), "dim")
        if model is None and body:
            _quote(screen, body)
    screen.finish(document)


def _headed(hit: "Hit") -> tuple[str, str]:
    """The title and headings of a passage, and its text without those that it begins with, each said once."""
    from riyaz.retrieval.parsers import heading_of

    begins = hit.title and f"{hit.heading} > ".startswith(f"{hit.title} > ")
    named = " > ".join(part for part in ("" if begins else hit.title, hit.heading) if part)
    names = {hit.title, *hit.heading.split(" > ")}
    lines = hit.text.split("\n")
    while lines and (not lines[0].strip() or (heading_of(lines[0]) or (0, lines[0].strip()))[1] in names):
        lines.pop(0)
    return named, "\n".join(lines)


def _quote(screen: Screen, text: str, style: str = "") -> None:
    """Prints a document's text with a bar before every line, so that it cannot pass for riyaz's own output."""
    for line in printable(text).split("\n"):
        for part in Text(line, style).wrap(screen.data, max(screen.data.width - len(BAR), 1)) or [Text()]:
            screen.data.print(Text(BAR, "dim") + part, soft_wrap=True)


def verify(collection: Where, /, *, json: Json = False) -> None:
    """Check every text, chunk and vector of a collection against its hash."""
    from riyaz.retrieval import collection as collections

    screen = Screen(json)
    problems = collections.verify(collection)
    screen.finish({"collection": collection, "sound": not problems, "problems": problems})
    if problems:
        for problem in problems[1:]:
            screen.talk.print(printable_line(problem), soft_wrap=True)
        raise RiyazError(printable_line(problems[0]), str(collection))
    opened = collections.Collection.open(collection)
    by = f"vectors by {printable_line(opened.embedder[0])}" if opened.embedder else "words only"
    text = f"sound: {len(opened.documents):,} documents, {len(opened.chunks()):,} chunks, {by}"
    screen.data.print(text, soft_wrap=True)


def _embedder(name: str, otherwise: str) -> Any:
    from riyaz.engine.opening import open_embedder

    try:
        return open_embedder(name)
    except RiyazError as error:
        raise RiyazError(error.what, error.where, f"{error.hint}, {otherwise}" if error.hint else otherwise) from None
