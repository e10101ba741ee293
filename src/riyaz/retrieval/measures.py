"""Retrieval metrics, recall@k and MRR: pure functions over ranked document ids."""

from collections.abc import Collection, Sequence


def recall(ranked: Sequence[Sequence[str]], relevant: Sequence[Collection[str]], k: int) -> float:
    """Recall@k: share of questions with a `relevant` document among the first k of their ranking."""
    return sum(bool(set(names[:k]) & set(ids)) for names, ids in zip(ranked, relevant, strict=True)) / len(ranked)


def reciprocal_rank(ranked: Sequence[Sequence[str]], relevant: Sequence[Collection[str]]) -> float:
    """MRR: mean of 1 / rank of the first `relevant` document, 0 if the ranking has none (Voorhees 1999)."""
    ranks = [
        next((place for place, name in enumerate(names, 1) if name in ids), 0)
        for names, ids in zip(ranked, relevant, strict=True)
    ]
    return sum(1 / rank for rank in ranks if rank) / len(ranks)
