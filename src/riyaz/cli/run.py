"""`riyaz run`: answers for every row of a file, the row's own fields kept."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from riyaz.cli.options import Json, Target, configured
from riyaz.cli.output import Screen, write_text


def run(
    target: Target,
    file: Annotated[Path, Parameter(help="rows with a prompt, .jsonl, .csv or .tsv; answers are not needed")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the rows as .jsonl, each with its prediction")],
    prompt_column: Annotated[str | None, configured("prompt_column")] = None,
    json: Json = False,
) -> None:
    """Answer every row of a file."""
    from riyaz import predictor, scoring
    from riyaz.data import formats, tables
    from riyaz.report.terminal import listener

    screen = Screen(json)
    dataset = formats.load(file, prompt_column=prompt_column, answers_required=False)
    table = tables.read_table(file)
    with listener(screen.talk) as listen:
        listen({"event": "phase", "method": target, "phase": "open"})
        opened = predictor.open_target(target)

        def progress(done: int, total: int) -> None:
            listen({"event": "progress", "method": target, "phase": "answer", "done": done, "total": total})

        predictions = scoring.predict(opened, dataset.examples, progress)
    fields: dict[str, dict[str, Any]] = {f"{file.name}:{line}": row for line, row in table.rows}
    lines = [
        jsonlib.dumps({**fields[example.where], "prediction": prediction.text}, ensure_ascii=False)
        for example, prediction in zip(dataset.examples, predictions, strict=True)
    ]
    write_text(out, "".join(line + "\n" for line in lines))
    screen.talk.print(f"{len(lines):,} rows answered in {out}", soft_wrap=True)
    screen.finish({"target": target, "file": str(file), "out": str(out), "rows": len(lines)})
