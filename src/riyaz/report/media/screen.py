"""Consoles of rich, and lines in them: what every command prints with. Nothing of results is imported here, since a
command that answers would wait for it."""

import os
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from riyaz.report.media.markup import printable

PLAIN_WIDTH = 100  # columns when the output is no terminal


class PipeConsole(Console):
    """A console that prints no control characters from texts and hands a broken pipe on to the command line.

    In the kernel of a notebook it writes to its file as elsewhere; rich would show a cell's output beside it.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to write, without the control characters of labels, answers and documents."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Re-raises the BrokenPipeError that rich is handling, instead of exiting."""
        raise


def console(*, stderr: bool, quiet: bool = False) -> Console:
    """A console on stderr (progress) or stdout (results), PLAIN_WIDTH columns wide when it is not a terminal; a `quiet`
    one prints nothing."""
    made = PipeConsole(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, force_jupyter=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PLAIN_WIDTH
    return made


def print_lines(lines: Iterable[Text], out: Console) -> None:
    """Prints lines whole: what is wider than the terminal goes on in its next line."""
    for line in lines:
        out.print(line, soft_wrap=True)
