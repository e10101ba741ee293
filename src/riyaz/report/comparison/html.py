"""report.html of a comparison: one page without other files, made from compare.json and the answers of each arm.

Data enters it as escaped text (`markup`) or as a JSON block that page.js shows with textContent; `page` makes the
file and its content security policy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from riyaz.report.comparison import (
    confidence,
    confidence_pictures,
    details,
    examples,
    extra_findings,
    first_fold,
    labels,
    pictures,
    questions,
    retrieval_pictures,
    schedule,
    schedule_picture,
    worth,
)
from riyaz.report.comparison.arms import (
    about,
    beaten_lines,
    best_for,
    megabytes,
    milliseconds,
    training,
)
from riyaz.report.limits import html as limits_section
from riyaz.report.media.markup import Markup, element, join, json_block
from riyaz.report.media.page import Section, asset, page
from riyaz.report.media.tables import figure, grid, numbers
from riyaz.report.words import (
    duration,
    fit_seconds,
    floor_line,
    forgetting,
    has_bases,
    headline,
    interval,
    metric_name,
    number,
    prose_forgetting,
    role,
    tenths,
    troubles,
)
from riyaz.results import Answer, ArmResult, Comparison, Limits
from riyaz.results.problems import RowProblems

STATUS = {"ok": "", "cut": "cut short", "failed": "failed", "skipped": "skipped"}


def render(
    comparison: Comparison, answers: dict[str, list[Answer]], commands: Sequence[tuple[str, str]] = (),
    limits: Mapping[str, Limits] | None = None, problems: RowProblems | None = None,
) -> str:  # fmt: skip
    """The whole page; `answers` holds the answered rows of each method, `commands` what to do next and how, `limits`
    what the methods that were measured for it cannot do, `problems` the rows that may be wrong."""
    rows = examples.browser_data(comparison, answers)
    return page(
        f"Riyaz: {headline(comparison)}",
        first_fold.head(comparison),
        _sections(comparison, answers, rows, commands, limits or {}, problems or RowProblems()),
        "Made by riyaz from compare.json; this file fetches nothing.",
        style=asset("media/page.css"),
        script=asset("comparison/page.js"),
        data=json_block(rows),
    )


def _sections(
    comparison: Comparison, answers: dict[str, list[Answer]], rows: dict[str, Any],
    commands: Sequence[tuple[str, str]], limits: Mapping[str, Limits], problems: RowProblems,
) -> list[Section]:  # fmt: skip
    arms = comparison.ranked
    return [
        ("next", "What to do next", "What to do next", first_fold.next_steps(commands)),
        ("arms", "The methods", "All methods, measured", _arms(comparison, arms)),
        ("cost", "Quality and cost", "Quality against the cost of an answer", _quality(comparison, arms)),
        ("worth", "Worth", worth.TITLE, _worth(comparison)),
        ("questions", "Questions", questions.TITLE, _questions(comparison, arms)),
        ("sure", "How sure", confidence.TITLE, _sure(comparison, arms)),
        ("training", "Training", "Learning and forgetting", _training(comparison, arms)),
        ("slices", "Slices", "Scores per slice", _slices(comparison, arms)),
        ("retrieval", "Retrieval", "Retrieval", _retrieval(comparison, arms)),
        ("more-rows", "More rows", extra_findings.CURVE_TITLE, _data_curve(comparison)),
        ("labels", "Labels", "Label by label", labels.section(comparison, answers)),
        ("examples", "Examples", "Where the methods disagree", examples.section(comparison, rows)),
        ("limits", "Limits", limits_section.TITLE, limits_section.section(limits)),
        ("data", "Data", "The data", details.data(comparison.data)),
        ("rows", "Rows", "Rows that may be wrong", details.rows_to_check(problems)),
        ("pairs", "Pairs", "Methods in pairs, on the same rows", details.pairs(comparison.pairs)),
        ("details", "Details", "The methods in detail", details.arms(arms)),
        ("places", "Places", schedule.TITLE, _schedule(comparison)),
        ("made", "How it was measured", "How it was measured", _made(comparison)),
        ("caveats", "Caveats", "What to keep in mind", details.keep_in_mind(comparison)),
    ]


def _worth(comparison: Comparison) -> Markup | None:
    lines = worth.worth_lines(comparison)
    return join(*(element("p", line) for line in lines)) if lines else None


def _schedule(comparison: Comparison) -> Markup | None:
    drawn = [schedule_picture.drawn(comparison, w, n) for w, n in ((pictures.FULL, "pw"), (pictures.NARROW, "pn"))]
    titles, rows = schedule.table(comparison)
    return figure(drawn, schedule.NOTE, grid(titles, rows, schedule.TITLE, text=4)) if drawn[0] else None


def _made(comparison: Comparison) -> Markup:
    return details.made(
        comparison.command, comparison.seconds, comparison.estimate_seconds, comparison.models or comparison.model,
        comparison.hardware, comparison.versions,
    )  # fmt: skip


def _arms(comparison: Comparison, arms: list[ArmResult]) -> Markup:
    """A compact ranking for narrow screens, then the table of training, memory, score, forgetting, latency, size and
    what each method suits, which scrolls in its own box."""
    if not arms:
        return element("p", "No method took part.")
    metric, pick, called = metric_name(comparison.metric), comparison.pick, role(comparison)
    titles = ["method", "training needed", "resources", metric, "forgetting", "speed", "artifact", "best for"]
    rows = []
    for arm in arms:
        cells = [
            training(arm) if arm.status in ("ok", "cut") else "–",
            _lines(megabytes(arm.peak_rss_mb), _making(arm)),
            _score(arm),
            _lines(forgetting(arm), _of_prose(arm) if arm.forgetting_nats else None),
            _lines(milliseconds(arm.ms_per_answer), "per answer" if arm.ms_per_answer else None),
            _lines(megabytes(arm.artifact_mb)),
            best_for(arm, arms, pick, called),
        ]  # fmt: skip
        title = element("th", _title(arm, called if arm.name == pick else ""), scope="row")
        rows.append(element("tr", title, *(element("td", cell) for cell in cells),
                            class_="picked" if arm.name == pick else None))  # fmt: skip
    caption = "Best score first. Intervals: 95 %. Forgetting: the rise of the loss on general text."
    table = element(
        "table", element("caption", caption),
        element("thead", element("tr", *(element("th", title, scope="col") for title in titles))),
        element("tbody", *rows), class_="arms",
    )  # fmt: skip
    wrapped = element("div", table, class_="wide-table", role="region", aria_label="The methods", tabindex="0")
    notes = [*beaten_lines(arms), *filter(None, [floor_line(comparison)])]
    return join(
        _ranking(arms, metric, pick), wrapped, *(element("p", note, class_="note") for note in notes),
        _troubles(comparison.arms),
    )  # fmt: skip


def _ranking(arms: list[ArmResult], metric: str, pick: str | None) -> Markup:
    """Score and speed of every method in three narrow columns."""
    rows = [
        element(
            "tr", element("th", first_fold.name(arm), scope="row"),
            element("td", _lines(number(arm.score, 3), interval(arm) if arm.ci_low is not None else None)),
            element("td", milliseconds(arm.ms_per_answer), class_="figure"),
            class_="picked" if arm.name == pick else None,
        )
        for arm in arms
    ]  # fmt: skip
    head = element("tr", *(element("th", title, scope="col") for title in ("method", metric, "an answer")))
    return element("table", element("caption", "Best score first"), element("thead", head), element("tbody", *rows),
                   class_="ranking")  # fmt: skip


def _title(arm: ArmResult, called: str) -> Markup:
    """The arm's method, what it is called if it is picked, its status if it is not ok, and what its method is."""
    status = STATUS[arm.status]
    sure = "sure" if called == "the pick" else "unsure"
    picked = element("span", called, class_=f"badge {sure}") if called else None
    flagged = element("span", status, class_="badge unsure") if status else None
    base = element("span", f"on {arm.base}", class_="under") if arm.base else None
    what = element("span", about(arm).what, class_="what")
    return join(first_fold.name(arm, arm.method), picked, flagged, base, what)


def _making(arm: ArmResult) -> str:
    seconds = fit_seconds(arm)
    if arm.peak_rss_mb is None:
        return ""
    return "peak memory" + (f", {duration(seconds)} to make it" if seconds else "")


def _lines(first: object, second: object = None) -> Markup:
    return join(element("b", first), element("span", second, class_="under") if second else None)


def _of_prose(arm: ArmResult) -> str:
    return "nats per token" + (f"; of prose {prose_forgetting(arm)}" if arm.prose_nats is not None else "")


def _score(arm: ArmResult) -> Markup:
    seeds, teacher = extra_findings.seeds(arm), arm.teacher
    return join(
        _lines(number(arm.score, 3), interval(arm) if arm.ci_low is not None else None),
        pictures.interval_bar(arm),
        element("span", seeds, class_="under") if seeds else None,
        element("span", f"{teacher.name} on the same rows: {number(teacher.score, 3)}", class_="under")
        if teacher is not None and teacher.score is not None
        else None,
    )


def _troubles(arms: list[ArmResult]) -> Markup | None:
    items = [
        element("li", element("b", method), f" {STATUS[status]}: {reason}") for method, status, reason in troubles(arms)
    ]
    return element("ul", *items, class_="troubles") if items else None


def _quality(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric, pick = metric_name(comparison.metric), comparison.pick
    drawn = [
        pictures.quality_cost(arms, pick, metric, w, n) for w, n in ((pictures.FULL, "qw"), (pictures.NARROW, "qn"))
    ]
    if not drawn[0]:
        return None
    heads, rows = (
        ["method", metric, "95 % interval", "ms per answer"],
        [[a.name, number(a.score, 3), interval(a), tenths(a.ms_per_answer)] for a in arms],
    )
    note = (
        "Up is better, left is faster. A hollow mark: another method is at least as good and as fast. A filled mark: "
        "no other is; the dashed line joins these."
    )
    if has_bases(arms):
        heads, rows = (
            [*heads, "MB while answering"],
            [[*row, number(arm.serving_mb)] for row, arm in zip(rows, arms, strict=True)],
        )
        note += " Colour and shape are the method, the name behind the @ is the base; a larger mark needs more memory."
    return figure(drawn, note, numbers(heads, rows))


def _sure(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    """How true the confidences are, and what withholding the least sure answers would do."""
    titles, rows = confidence.table(arms)
    if not rows:
        return None
    widths, pick = ((pictures.HALF, "w"), (pictures.NARROW, "n")), comparison.pick
    risk = [confidence_pictures.risk(arms, pick, width, f"c{name}") for width, name in widths]
    reliability = [confidence_pictures.reliability(arms, pick, width, f"b{name}") for width, name in widths]
    figures = [figure(risk, confidence.RISK_NOTE, None)] if risk[0] else []
    figures += [figure(reliability, confidence.RELIABILITY_NOTE, None)] if reliability[0] else []
    return join(
        element("p", confidence.NOTE), grid(titles, rows, "How true the confidences are"),
        element("div", *figures, class_="pair"),
    )  # fmt: skip


def _questions(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    """How every method answers each question, and how true the best one's confidences are."""
    if not questions.named_questions(arms):
        return None
    best = next(arm for arm in arms if arm.questions and comparison.pick in (arm.name, None))
    shown = [(name, best, each) for name, each in questions.calibrated(best)]
    drawn = [
        confidence_pictures.panels_of(shown, None, width, f"u{name}")
        for width, name in ((pictures.FULL, "w"), (pictures.NARROW, "n"))
    ]
    caption = f"{best.name}, question by question. {confidence.RELIABILITY_NOTE}"
    titles, rows = questions.figures(arms)
    return join(
        element("p", questions.NOTE), grid(*questions.table(arms), "Scores of each question"),
        figure(drawn, caption, numbers(titles, rows)) if drawn[0] else None,
    )  # fmt: skip


def _training(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric, pick = metric_name(comparison.metric), comparison.pick
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    curves = [pictures.learning_curves(arms, pick, width, f"l{n}") for width, n in widths]
    lost = [pictures.forgetting(arms, pick, metric, width, f"f{n}") for width, n in widths]
    figures = []
    if curves[0]:
        judged = [(arm, point) for arm in arms for point in arm.curve if point.valid_loss is not None]
        points = [
            [arm.name, number(point.step), number(point.loss, 4), number(point.valid_loss, 4)] for arm, point in judged
        ]
        heads, kept = ["method", "step", "training loss", "validation loss"], "with the lowest validation loss"
        if any(point.valid_accuracy is not None for _, point in judged):
            heads, kept = [*heads, "validation accuracy"], "that answered most validation rows right"
            points = [[*row, number(point.valid_accuracy, 3)] for row, (_, point) in zip(points, judged)]
        table = numbers(heads, points)
        figures.append(figure(curves, f"The step {kept} is kept. Faint: training loss.", table))
    if lost[0]:
        rows = [[arm.name, number(arm.score, 3), forgetting(arm), number(arm.kl_task, 3)] for arm in arms]
        table = numbers(["method", metric, "nats per token", "KL to the base on the task"], rows)
        figures.append(
            figure(lost, "Up is better, left forgets less. At zero, the weights are the base model's.", table)
        )
    said = [element("p", line, class_="note") for line in extra_findings.overfitting_lines(arms)]
    return join(element("div", *figures, class_="pair"), *said) if figures else None


def _slices(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    widths = ((pictures.FULL, "sw"), (pictures.NARROW, "sn"))
    drawn = [pictures.slices(arms, comparison.pick, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    sliced = [arm for arm in arms if arm.slices]
    titles = list(dict.fromkeys(title for arm in sliced for title in arm.slices))
    rows = []
    for title in titles:
        scores = [arm.slices.get(title) for arm in sliced]
        count = next((entry.n for entry in scores if entry and entry.n is not None), None)
        rows.append([title, number(count), *(number(entry.score if entry else None, 3) for entry in scores)])
    note = "One panel per slice, with its number of test rows; one line per method."
    if len(titles) > pictures.SLICES_SHOWN:
        note += f" Shown are the {pictures.SLICES_SHOWN} largest of {len(titles)} slices; the table has all."
    worst = extra_findings.worst_slice_line(comparison)
    shown = figure(drawn, note, numbers(["slice", "rows", *(arm.name for arm in sliced)], rows))
    return join(shown, element("p", worst, class_="note") if worst else None)


def _retrieval(comparison: Comparison, arms: list[ArmResult]) -> Markup | None:
    metric = metric_name(comparison.metric)
    pairs = extra_findings.retrieving(arms)
    if not pairs:
        return None
    widths = ((pictures.HALF, "w"), (pictures.NARROW, "n"))
    drawn = [
        ([retrieval_pictures.recall(pairs, width, f"r{n}") for width, n in widths],
         "Recall at k: how often the right document is among the first k passages."),
        ([retrieval_pictures.contexts(pairs, metric, width, f"o{n}") for width, n in widths],
         f"The {metric} without passages, with the retrieved passages and with the right documents in the prompt."),
    ]  # fmt: skip
    figures = [figure(pair, caption, None) for pair, caption in drawn if pair[0]]
    table = grid(*extra_findings.retrieval_table(arms), "Retrieval in figures")
    return join(element("div", *figures, class_="pair"), table, element("p", extra_findings.RETRIEVAL_NOTE))


def _data_curve(comparison: Comparison) -> Markup | None:
    metric = metric_name(comparison.metric)
    widths = ((pictures.HALF, "dw"), (pictures.NARROW, "dn"))
    drawn = [retrieval_pictures.data_curve(comparison, metric, width, name) for width, name in widths]
    if not drawn[0]:
        return None
    curve = figure(drawn, extra_findings.curve_note(comparison), numbers(*extra_findings.curve_table(comparison)))
    return element("div", curve, class_="pair")
