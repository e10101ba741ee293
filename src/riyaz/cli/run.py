"""`riyaz run`: answers every row of a file and writes the rows with their answers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Target, configured
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError
from riyaz.events import Progress
from riyaz.files import write_lines


def run(
    target: Target,
    file: Annotated[Path, Parameter(help="a file of rows with a prompt; answers are not needed")],
    /,
    *,
    out: Annotated[Path, Parameter(help="file to write: the rows as .jsonl, each with its prediction")],
    prompt_column: Annotated[str | None, configured("prompt_column")] = None,
    encoding: Annotated[str | None, configured("encoding")] = None,
    json: Json = False,
) -> None:
    """Answer every row of a file."""
    from riyaz import artifact, predictor, scoring
    from riyaz.data import formats, many_files
    from riyaz.report.terminal import listener

    if not out.parent.is_dir():  # checked before any row is answered
        raise RiyazError("the folder does not exist", str(out.parent), "create it or choose another --out")
    if out.is_dir() or out.resolve() == file.resolve():
        what = "is a folder" if out.is_dir() else "is the file that is read"
        raise RiyazError(what, str(out), "choose another --out")
    screen = Screen(json)
    like = artifact.reading_of(target)
    dataset = formats.load(file, prompt_column=prompt_column, encoding=encoding, answers_required=False, like=like)
    for note in dataset.notes:
        screen.talk.print(note, soft_wrap=True)
    opened = predictor.open_target(target)
    with listener(screen.talk) as listen:

        def progress(done: int, total: int) -> None:
            listen(Progress("answer", done, total, target))

        predictions = scoring.predict(opened, dataset.examples, progress)
    tables = many_files.read_tables(file, dataset.reading.encoding if dataset.reading else encoding)
    root = many_files.common_folder(tables)
    fields = {table.place(line, root): row for table in tables for line, row in table.rows}
    rows = [
        {**fields[example.where], "prediction": prediction.text}
        | ({"citations": prediction.citations} if prediction.citations else {})
        for example, prediction in zip(dataset.examples, predictions, strict=True)
    ]
    write_lines(out, rows)
    screen.talk.print(f"{len(rows):,} rows answered in {out}", soft_wrap=True)
    screen.finish({"target": target, "file": str(file), "out": str(out), "rows": len(rows)})
