"""A closed set's answers label by label: precision, recall and F1 of each label, and which label is taken for which."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riyaz.report.media.markup import Markup, element, join
from riyaz.report.media.tables import grid
from riyaz.report.words import count, number
from riyaz.results import Answer, Comparison

MATRIX = 15  # most labels of a matrix; with more, the most frequent confusions are listed
LISTED = 15
SHADES = 5  # classes h1 to h5 of page.css
OTHER = "(another text)"  # an answer that is no label


@dataclass(frozen=True)
class LabelScore:
    """Test rows of a label, and how well it is found."""

    label: str
    rows: int
    precision: float
    recall: float
    f1: float


def outcomes(answers: Sequence[Answer], labels: Sequence[str]) -> list[tuple[str, str]]:
    """(right label, answered label) of every row; of several right labels the answered one counts, else the first."""
    known = {label.strip() for label in labels}
    pairs = []
    for row in answers:
        accepted = [answer.strip() for answer in row.answers]
        said = row.prediction.strip() if row.prediction.strip() in known else OTHER
        pairs.append((said if said in accepted else accepted[0], said))
    return pairs


def label_scores(pairs: Sequence[tuple[str, str]]) -> list[LabelScore]:
    """The scores of every label that is right for a row or was answered, in alphabetical order."""
    right, said = Counter(right for right, _ in pairs), Counter(said for _, said in pairs)
    both = Counter(right for right, said in pairs if right == said)
    scores = []
    for label in sorted((right.keys() | said.keys()) - {OTHER}):
        hits = both[label]
        f1 = 2 * hits / (right[label] + said[label])
        precision, recall = hits / said[label] if said[label] else 0.0, hits / right[label] if right[label] else 0.0
        scores.append(LabelScore(label, right[label], precision, recall, f1))
    return scores


def section(comparison: Comparison, answers: dict[str, list[Answer]]) -> Markup | None:
    """F1 per label of the pick and the runner-up, and their confusions; None for other tasks."""
    labels = list(comparison.data.labels)
    shown = [name for name in (comparison.pick, comparison.runner_up) if name is not None and answers.get(name)]
    if comparison.data.task != "closed" or not labels or not shown:
        return None
    pairs = {name: outcomes(_one_each(answers[name]), labels) for name in shown}
    table = _scores({name: label_scores(pairs[name]) for name in shown})
    confusions = [_confusions(name, pairs[name]) for name in shown]
    folded = [element("details", element("summary", f"The same for {name}"), made)
              for name, made in zip(shown[1:], confusions[1:], strict=True)]  # fmt: skip
    return join(confusions[0], *folded, table)


def _one_each(answers: Sequence[Answer]) -> list[Answer]:
    """The first answer to every row: an arm's first part is the one whose artifact is kept."""
    first: dict[str, Answer] = {}
    for row in answers:
        first.setdefault(row.where, row)
    return list(first.values())


def _scores(scores: dict[str, list[LabelScore]]) -> Markup:
    """The table of F1 per label, lowest of the first method first; closed when it is long."""
    (pick, first), *others = scores.items()
    by_label = [{score.label: score for score in listed} for _, listed in others]
    titles = ["label", "test rows", f"F1 of {pick}", "precision", "recall", *(f"F1 of {name}" for name, _ in others)]
    rows = [
        [score.label, number(score.rows), *(number(value, 2) for value in (score.f1, score.precision, score.recall)),
         *(number(other[score.label].f1 if score.label in other else None, 2) for other in by_label)]
        for score in sorted(first, key=lambda score: (score.f1, score.label))
    ]  # fmt: skip
    table = grid(titles, rows, f"F1 of each label, lowest for {pick} first; precision and recall of {pick}")
    if len(rows) <= MATRIX:
        return table
    return element("details", element("summary", f"F1 of each of {count(len(rows), 'label')}"), table)


def _confusions(name: str, pairs: Sequence[tuple[str, str]]) -> Markup:
    counts = Counter(pairs)
    labels = sorted({label for pair in counts for label in pair} - {OTHER})
    if len(labels) <= MATRIX:
        return _matrix(name, counts, labels + [OTHER] * any(said == OTHER for _, said in counts))
    wrong = sorted(
        ((pair, rows) for pair, rows in counts.items() if pair[0] != pair[1]), key=lambda one: (-one[1], one)
    )
    if not wrong:
        return element("p", f"{name} took no label for another.")
    listed = [[number(rows), *pair] for pair, rows in wrong[:LISTED]]
    more = f", {LISTED} of {len(wrong)}" if len(wrong) > LISTED else ""
    return grid(
        ["test rows", "right label", "answered"], listed, f"Labels that {name} confuses most often{more}", text=3
    )


def _matrix(name: str, counts: Counter[tuple[str, str]], labels: Sequence[str]) -> Markup:
    """Test rows by right label (rows) and answered label (columns), the wrong ones shaded."""
    most = max((rows for (right, said), rows in counts.items() if right != said), default=1)
    heads = [element("th", element("span", label), scope="col", class_="figure") for label in labels]
    body = []
    for right in (label for label in labels if label != OTHER):
        cells = [_cell(counts[right, said], right == said, most) for said in labels]
        body.append(element("tr", element("th", right, scope="row"), *cells))
    caption = f"Test rows of {name}: the right label on the left, the answer above; mistakes are shaded"
    head = element("thead", element("tr", element("th", "right label", scope="col"), *heads))
    table = element("table", element("caption", caption), head, element("tbody", *body), class_="matrix")
    return element("div", table, class_="wide-table", role="region", aria_label=caption, tabindex="0")


def _cell(rows: int, hit: bool, most: int) -> Markup:
    shade = None if hit or not rows else f"h{max(1, round(SHADES * rows / most))}"
    return element("td", element("b", rows) if hit else rows or "·", class_=" ".join(filter(None, ("figure", shade))))
