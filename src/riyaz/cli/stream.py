"""Printing an answer while it is generated, then whether it was cut, its citations and how fast it came."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.report.media.markup import printable_line

if TYPE_CHECKING:
    from riyaz.predictor import Stream

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def after(screen: Screen, stream: "Stream") -> None:
    """Print that the limit has cut the answer, then the place of every passage in the prompt, then the pace."""
    if stream.cut:
        line = f"cut off at {stream.limit} tokens; --max-tokens sets the limit"
        screen.talk.print(line, style="dim", soft_wrap=True)
    cite(screen, stream.citations)
    if line := pace(stream):
        screen.talk.print(line, style="dim", soft_wrap=True)


def pace(stream: "Stream") -> str:
    """`61 tokens, 84.2 a second; prompt of 1,250 tokens in 0.31 s`; "" for an answer that was not generated."""
    timing, count = stream.timing, len(stream.tokens)
    if timing is None or timing.prompt_s is None:
        return ""
    rate = "" if timing.tokens_s is None else f", {_rate(timing.tokens_s)} a second"
    prompt = f"prompt of {timing.prompt_tokens:,} tokens in {timing.prompt_s:.2f} s"
    return f"{count:,} token{'' if count == 1 else 's'}{rate}; {prompt}"


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def figures(stream: "Stream") -> dict[str, Any]:
    """The keys of JSON output for what `pace` says; null for an answer that was not generated."""
    timing = stream.timing
    return {
        "tokens": len(stream.tokens) if timing else None, "tokens_s": timing and timing.tokens_s,
        "prompt_tokens": timing and timing.prompt_tokens, "prompt_s": timing and timing.prompt_s,
    }  # fmt: skip


def cite(screen: Screen, citations: Sequence[dict]) -> None:
    """Print the place of every passage in the prompt, and whether any fitted the question."""
    if citations and not any(each.get("relevant", True) for each in citations):
        text = "nothing relevant in the documents: the answer was made beside the nearest passages"
        screen.talk.print(text, style="dim", soft_wrap=True)
    for each in citations:
        screen.talk.print(f"from {place_of(each)}", style="dim", soft_wrap=True, markup=False)


def place_of(citation: dict[str, Any]) -> str:
    """`handbook.pdf, page 3` for a document with pages, `rules.md, characters 0–42` for another; then its copies."""
    first, last = citation.get("page"), citation.get("last_page")
    if first:
        where = f"page {first:,}" if first == last else f"pages {first:,}–{last:,}"
    else:
        where = f"characters {citation['start']:,}–{citation['end']:,}"
    copies = f", also in {', '.join(map(printable_line, citation['also']))}" if citation.get("also") else ""
    return f"{printable_line(citation['doc_id'])}, {where}{copies}"


def print_stream(screen: Screen, pieces: Iterable[str], said: list[str] | None = None) -> str:
    """Print the pieces as they come, without control characters, and return the whole unchanged answer; `said` gets
    them one by one."""
    printed = [] if said is None else said
    for piece in pieces:
        # \r\n may be split between two pieces
        screen.data.print(piece.replace("\r", ""), end="", soft_wrap=True)
        printed.append(piece)
    screen.data.print()
    return "".join(printed)
