"""Which page of the documentation says more about an error: that of the module which raised it."""

from riyaz.errors import RiyazError

PAGES = {  # a module, or a package with all its modules; the longest name counts
    "riyaz.comparison.at_place": "docs/from-one-machine-to-a-thousand.md#a-comparison-on-several-machines",
    "riyaz.comparison.parcel": "docs/from-one-machine-to-a-thousand.md#a-comparison-on-several-machines",
    "riyaz.comparison.places": "docs/from-one-machine-to-a-thousand.md#a-comparison-on-several-machines",
    "riyaz.comparison.ray_nodes": "docs/from-one-machine-to-a-thousand.md#without-a-shared-folder-ray",
    "riyaz.data.answer_in_prompt": "docs/data.md#labels-in-their-prompts",
    "riyaz.data.bounds": "docs/data.md#files",
    "riyaz.data.check_columns": "docs/data.md#columns",
    "riyaz.data.column_guess": "docs/data.md#columns",
    "riyaz.data.column_roles": "docs/data.md#columns",
    "riyaz.data.conversations": "docs/data.md#columns",
    "riyaz.data.corpus": "docs/data.md#plain-text",
    "riyaz.data.encodings": "docs/data.md#encodings",
    "riyaz.data.formats": "docs/data.md#columns",
    "riyaz.data.groups": "docs/data.md#rows-that-belong-together",
    "riyaz.data.many_files": "docs/data.md#files",
    "riyaz.data.parquet": "docs/data.md#files",
    "riyaz.data.questions": "docs/decisions.md#files",
    "riyaz.data.schema": "docs/data.md#answers-that-keep-to-a-schema",
    "riyaz.data.tables": "docs/data.md#files",
    "riyaz.data.task": "docs/data.md#columns",
    "riyaz.data.workbook": "docs/data.md#files",
    "riyaz.inside": "docs/inside.md",
    "riyaz.limits": "docs/what-a-model-cannot-do.md",
    "riyaz.metrics.code": "docs/threat-model.md#limits",
    "riyaz.metrics.sql": "docs/threat-model.md#limits",
    "riyaz.ranks": "docs/from-one-machine-to-a-thousand.md#one-model-on-several-processes",
    "riyaz.retrieval.documents": "docs/data.md#documents",
    "riyaz.retrieval.parsers": "docs/data.md#documents",
    "riyaz.serve": "docs/serving.md",
    "riyaz.serve.guard": "docs/serving.md#who-may-ask",
    "riyaz.serve.page": "docs/page.md",
    "riyaz.teacher": "docs/reference.md#riyaz-distil",
    "riyaz.ternarizing": "docs/from-nothing-to-1.58-bits.md#what-riyaz-refuses",
}
# These read files of every kind: the module that called them says which.
READERS = ("riyaz.json_files", "riyaz.files", "riyaz.folders", "riyaz.errors", "riyaz.config.checking")
COMMANDS = ("riyaz ", "pip install")


def page_of(error: RiyazError) -> str:
    """The page, with its anchor, such as `docs/data.md#columns`; empty where none says more, and where the line ends in
    a command to copy. An error that was raised in the place of another, to say where, has the other's page if its own
    module has none."""
    if any(command in error.hint for command in COMMANDS):
        return ""
    raised_in, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        raised_in = raised_in if module in READERS else module
        trace = trace.tb_next
    while raised_in and raised_in not in PAGES:
        raised_in = raised_in.rpartition(".")[0]
    first = error.__context__
    return PAGES.get(raised_in) or (page_of(first) if isinstance(first, RiyazError) else "")
