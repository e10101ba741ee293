"""Labels that are probably wrong, and labels that are mixed up, from out-of-fold probabilities."""

from dataclasses import dataclass

import numpy as np

LEAST_RATIO = 10.0  # another label so many times as likely as the row's own: it is probably wrong
LEAST_MIXED, LEAST_MIXED_SHARE = 3, 0.1  # rows, and share of the rows of two labels, from which they are mixed up
SMALLEST = 1e-12  # probability that stands for 0


@dataclass(frozen=True)
class Suspect:
    """A row, the label that the others suggest in place of its own, and the probabilities of both."""

    row: int
    suggested: int
    probability: float
    own: float

    @property
    def ratio(self) -> float:
        """How many times as likely the suggested label is."""
        return self.probability / max(self.own, SMALLEST)


def wrong_labels(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """Rows whose label is probably wrong, the likeliest first. Rows whose label no other fold has are left out: nothing
    is known of them. `probabilities` (n, L), `labels` (n,)."""
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    rest = probabilities.copy()
    rest[rows, labels] = -1
    best = rest.argmax(axis=1)
    suspects = [
        Suspect(int(row), int(best[row]), float(rest[row, best[row]]), float(own[row])) for row in rows if own[row] > 0
    ]
    wrong = [suspect for suspect in suspects if suspect.ratio >= LEAST_RATIO]
    return sorted(wrong, key=lambda suspect: -suspect.ratio)


def mixed_labels(
    probabilities: np.ndarray, labels: np.ndarray, wrong: list[Suspect]
) -> list[tuple[int, int, int, int]]:
    """(label, label, rows of one that are predicted as the other, rows of both), the most mixed up first. Rows in
    `wrong` are not counted, nor those whose label no other fold has."""
    kept = probabilities[np.arange(len(labels)), labels] > 0
    kept[[suspect.row for suspect in wrong]] = False
    count = probabilities.shape[1]
    table = np.zeros((count, count), int)
    np.add.at(table, (labels[kept], probabilities[kept].argmax(axis=1)), 1)
    rows = np.bincount(labels[kept], minlength=count)
    both = table + table.T
    pairs = [
        (int(one), int(other), int(both[one, other]), int(rows[one] + rows[other]))
        for one, other in np.argwhere(np.triu(both, 1) >= LEAST_MIXED)
    ]
    mixed = [pair for pair in pairs if pair[2] >= LEAST_MIXED_SHARE * pair[3]]
    return sorted(mixed, key=lambda pair: -pair[2] / pair[3])
