"""A model card in Hugging Face's metadata format, from what was measured only.

    text = card("runs/bank/lora", use="Route questions of customers to a desk.")

It reads the artifact, its row of the comparison's compare.json or of adapted.json, and limits.json beside the artifact.
Where something was not measured it says so.
"""

import json
from pathlib import Path
from typing import Any

from riyaz import __version__, artifact
from riyaz.artifact import Artifact
from riyaz.commit import version_line
from riyaz.config import TOOLS
from riyaz.engine.opening import EMBEDDER
from riyaz.errors import RiyazError
from riyaz.limits.limits_file import comparison_of, read_limits
from riyaz.metrics.intervals import wilson
from riyaz.report.comparison import confidence, questions
from riyaz.report.comparison.arms import megabytes, milliseconds
from riyaz.report.comparison.details import ROW_KINDS
from riyaz.report.comparison.extra_findings import earlier_line
from riyaz.report.limits import markdown as limits_markdown
from riyaz.report.limits import words as limits_words
from riyaz.report.media.markdown_text import escape, grid
from riyaz.report.words import duration, fit_seconds, forgetting, interval, metric_name, number, prose_forgetting
from riyaz.results import ADAPTED, COMPARE, LIMITS, ArmResult, Comparison, SliceScore
from riyaz.sources.catalogue import CATALOGUE, Package

BINARY = ("accuracy", "exact_match")  # metrics of 0 or 1 for each row
NOT_MEASURED, NOT_STATED = "not measured", "not stated"
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "Gemma": "gemma"}  # of the catalogue, as the hub writes them
LIBRARIES = {"lora": "peft", "soft_prompt": "peft", "full": "transformers"}
PIPELINES = {"closed": "text-classification", "questions": "text-classification"}


def card(target: str, use: str | None = None) -> str:
    """The card of an artifact as Markdown; `use` is the intended use in the user's words. Raises RiyazError for what is
    no artifact."""
    folder = artifact.resolve(target)
    if not (folder / artifact.NAME).is_file():
        raise RiyazError("is no artifact", target, "give what riyaz adapt or riyaz compare made")
    made = Artifact.read(folder)
    home = comparison_of(folder / LIMITS)
    measured = home / COMPARE if home else folder / ADAPTED
    compared = Comparison.read(measured) if measured.is_file() else None
    row = compared.arm(folder.parent.parent.name if home else made.method) if compared else None
    limits = read_limits(target)
    name = folder.parent.parent.name if home else folder.resolve().name
    parts = [
        _metadata(made, row, compared, name),
        f"# {escape(name)}",
        f"Written by riyaz {version_line(__version__)} from what it measured; what it did not measure is called so.",
        "## Intended use", escape(use) if use else f"{NOT_STATED.capitalize()}.",
        "## Data", _data(made, compared),
        "## Method", _method(made, row),
        "## Scores", _scores(row, compared),
        "## Confidence", _confidence(row),
        "## Costs", _costs(row),
        "## Forgetting", _forgetting(row),
        "## Licence", _licence(made),
    ]  # fmt: skip
    if limits is None:
        return "\n\n".join([*parts, "## Limits", f"Bias, hallucination, context and fragility: {NOT_MEASURED}."]) + "\n"
    missing = [
        title for suite, title in limits_words.TITLES.items() if suite not in {each.name for each in limits.suites}
    ]
    parts += ["## Limits", escape(limits_words.LEAD), *limits_markdown.suites(limits, 3)]
    if missing:
        parts.append(f"{', '.join(missing)}: {NOT_MEASURED}.")
    return "\n\n".join(parts) + "\n"


def _metadata(made: Artifact, row: ArmResult | None, compared: Comparison | None, name: str) -> str:
    """The block that the hub reads: YAML whose values are JSON, which YAML reads as it is."""
    fields: dict[str, Any] = {"tags": ["riyaz", made.method]}
    if made.base is not None:
        known = _known(made)
        fields["base_model"] = (known.hub if known else None) or made.base.name
    if made.weights.kind in LIBRARIES and not made.weights.beside:
        fields["library_name"] = LIBRARIES[made.weights.kind]
    fields["pipeline_tag"] = PIPELINES.get(made.task.kind if made.task else "", "text-generation")
    licence = _licence_name(made)
    if licence:
        fields["license"] = licence
    if row is not None and row.score is not None and compared is not None:
        test = compared.data.files.get("test") or compared.data.files.get("train")
        fields["model-index"] = [{"name": name, "results": [{
            "task": {"type": fields["pipeline_tag"]},
            "dataset": {"name": Path(test.path).name if test else "rows", "type": "local",
                        "revision": test.sha256[:16] if test else ""},
            "metrics": [{"type": row.metric, "value": round(row.score, 4),
                         "name": f"{metric_name(row.metric)}, 95 % interval {interval(row)}"}],
        }]}]  # fmt: skip
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _data(made: Artifact, compared: Comparison | None) -> str:
    lines = []
    if compared is not None:
        rows = {name: count for name, count in compared.data.rows.items() if count}
        counts = ", ".join(f"{number(count)} {ROW_KINDS.get(name, name)}" for name, count in rows.items())
        lines.append(f"Rows: {counts or NOT_MEASURED}")
        lines += [
            f"{part}: {Path(file.path).name}, SHA-256 {file.sha256}" for part, file in compared.data.files.items()
        ]
        slices = ", ".join(f"{name} ({number(count)})" for name, count in compared.data.slices.items())
        lines.append(f"Slices: {slices or 'the rows have none'}")
    else:
        lines += [f"{part}: SHA-256 {value}" for part, value in made.data.items() if isinstance(value, str)]
        lines.append(f"Rows and slices: {NOT_MEASURED}")
    return _list(lines)


def _method(made: Artifact, row: ArmResult | None) -> str:
    chosen = row.chosen if row else made.config.get("chosen", {})
    base = f"{made.base.name}, SHA-256 of the weights {made.base.sha256}" if made.base else "none: no language model"
    lines = [f"Method: {made.method}", f"Base model: {base}", f"Instruction: {made.text.instruction or 'none'}"]
    for each in made.config.get("from", []):  # the last one first
        lines.append(f"Trained on from: {each['name']}, SHA-256 of its adapter {each['sha256']}")
    plain = {name: value for name, value in chosen.items() if isinstance(value, (str, int, float, bool))}
    if plain:
        lines.append("Settings: " + ", ".join(f"{name} {value}" for name, value in plain.items()))
    if made.task is not None:
        count = f", {len(made.task.labels)} labels" if made.task.labels else ""
        named_questions = ", ".join(f"{question.name} ({question.type})" for question in made.task.questions)
        lines.append(f"Task: {made.task.kind}{count}{': ' if named_questions else ''}{named_questions}")
        if made.task.schema == TOOLS:
            lines.append("Answers: text, or calls by the schemas of the tools that a conversation defines")
        elif made.task.schema:
            lines.append(f"Answers: JSON that keeps to the schema of {artifact.SCHEMA}, token by token")
    lines.append("Seeds: " + (", ".join(f"{name} {value}" for name, value in made.seeds.items()) or NOT_STATED))
    lines.append("Versions: " + (", ".join(f"{name} {value}" for name, value in made.versions.items()) or NOT_STATED))
    return _list(lines)


def _scores(row: ArmResult | None, compared: Comparison | None) -> str:
    if row is None or row.score is None or compared is None:
        return f"{NOT_MEASURED.capitalize()}."
    rows = [["all", number(row.n_test), number(row.score, 3), interval(row)]]
    rows += [[name, number(part.n), number(part.score, 3), _of_slice(row.metric, part)]
             for name, part in row.slices.items()]  # fmt: skip
    table = grid(["slice", "rows", metric_name(row.metric), "95 % interval"], rows)
    return f"{table}\n\nOn held-out test rows; where this arm was picked by them, its score is a little optimistic."


def _confidence(row: ArmResult | None) -> str:
    """How true the confidences are: the reliability diagram of the labels, or of each question, as a table."""
    measured = [] if row is None else questions.calibrated(row)
    if row is not None and row.calibration is not None:
        measured = [("all answers", row.calibration)]
    if not measured:
        return f"{NOT_MEASURED.capitalize()}."
    parts = ["The confidence of an answer is the calibrated probability that it is right."]
    for name, calibration in measured:
        parts += [f"{escape(name)}: ECE {confidence.error(calibration)}, on {number(calibration.rows)} test rows",
                  grid(*confidence.bins(calibration))]  # fmt: skip
    return "\n\n".join(parts)


def _of_slice(metric: str | None, part: SliceScore) -> str:
    """The interval of a slice: over its groups, or Wilson's of a 0/1 score, whose number of right answers is known."""
    if part.ci_low is not None and part.ci_high is not None:
        return " to ".join(number(end, 3) for end in (part.ci_low, part.ci_high))
    if metric not in BINARY or part.n is None or part.score is None:
        return NOT_MEASURED
    return " to ".join(number(end, 3) for end in wilson(part.score * part.n, part.n))


def _costs(row: ArmResult | None) -> str:
    if row is None:
        return f"{NOT_MEASURED.capitalize()}."
    seconds = fit_seconds(row)
    return _list([
        f"Time to make it, search included: {duration(seconds) if seconds else NOT_MEASURED}",
        f"Peak memory: {megabytes(row.peak_rss_mb) if row.peak_rss_mb else NOT_MEASURED}",
        f"An answer: {milliseconds(row.ms_per_answer) if row.ms_per_answer else NOT_MEASURED}",
        f"On disk: {megabytes(row.artifact_mb) if row.artifact_mb else NOT_MEASURED}",
    ])  # fmt: skip


def _forgetting(row: ArmResult | None) -> str:
    if row is None or row.forgetting_nats is None:
        return f"{NOT_MEASURED.capitalize()}."
    prose = f"; on English prose by {escape(prose_forgetting(row))}" if row.prose_nats is not None else ""
    text = f"The loss on general text rose by {escape(forgetting(row))} nats per token over the base model's{prose}."
    earlier = earlier_line(row)
    return f"{text} On the task of the artifact that it went on from: {escape(earlier)}." if earlier else text


def _licence(made: Artifact) -> str:
    known, sentences = _known(made), []
    if "encoder" in (made.weights.kind, made.weights.beside):
        sentences.append(f"The artifact holds a fine-tuned {EMBEDDER}: {CATALOGUE[EMBEDDER].licence}.")
    elif made.base is None:
        return "There is no base model; the answers are those of the training rows."
    if made.base is not None and known is None:
        sentences.append(f"Of the base model {escape(made.base.name)}: not known to riyaz.")
    elif known is not None:
        terms = f" It has terms: {known.terms}." if known.terms else ""
        sentences.append(f"Of the base model: {known.licence}.{escape(terms)}")
    if known is not None or made.base is None:
        sentences.append(f"The licence of the training rows is {NOT_STATED}.")
    return " ".join(sentences)


def _licence_name(made: Artifact) -> str | None:
    known = _known(made)
    return LICENCES.get(known.licence, "other") if known else None


def _known(made: Artifact) -> Package | None:
    """The catalogue's entry of the base model, by the hash of its weights; None for another model."""
    if made.base is None:
        return None
    return next((package for package in CATALOGUE.values() if package.sha256 == made.base.sha256), None)


def _list(lines: list[str]) -> str:
    return "\n".join(f"* {escape(line)}" for line in lines)
