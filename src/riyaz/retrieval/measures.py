"""How well a ranking finds the documents that hold the answer: pure functions over ranked document names."""

from collections.abc import Collection, Sequence


def recall(ranked: Sequence[Sequence[str]], wanted: Sequence[Collection[str]], k: int) -> float:
    """Share of questions with one of their documents among the first k of their ranking."""
    return sum(bool(set(names[:k]) & set(gold)) for names, gold in zip(ranked, wanted, strict=True)) / len(ranked)


def reciprocal_rank(ranked: Sequence[Sequence[str]], wanted: Sequence[Collection[str]]) -> float:
    """Mean of 1 / rank of the first right document, 0 where it is not in the ranking (MRR; Voorhees 1999)."""
    ranks = [
        next((place for place, name in enumerate(names, 1) if name in gold), 0)
        for names, gold in zip(ranked, wanted, strict=True)
    ]
    return sum(1 / rank for rank in ranks if rank) / len(ranks)
