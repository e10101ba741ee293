"""Keys and values of a block of rows, and the attention functions that write and read them.

A row attends to one prefix, stored once for the whole block, and to its own slots. Each of the two is one call of the
fused attention, which also returns the log of the sum of its weights; the two results are combined by these sums as in
flash attention (Dao et al. 2022; for a shared prefix: Juravsky et al. 2024, arXiv 2402.05099). All keys are kept; a
layer with a window masks those before it.

Legend: T tokens of the block in one forward pass, B rows, L slots per row, S slots in use, m new tokens per row,
P tokens of the prefix, H query heads, K key/value heads, G = H / K, D head size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riyaz.layers.attention import query_blocks, window_mask

Attend = Callable[..., Tensor]  # as in `models`: (layer, q, k, v, window=None)
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a shared prefix, (layers, 1, K, P, D) each."""

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """Its number of tokens P."""
        return self.keys.shape[3]

    def first(self, length: int) -> "Prefix":
        """Its first `length` tokens, not copied."""
        return Prefix(self.keys[:, :, :, :length], self.values[:, :, :, :length])


class Block:
    """Slots for B rows: the first `width` hold each row's first tokens, left-aligned; later tokens follow.

    With `keep` False no tokens can be added later, and all layers share one layer's memory.
    """

    def __init__(self, layers: int, lengths: Sequence[int], prefix: Prefix | None = None, *, keep: bool = True) -> None:
        self.lengths = torch.tensor(lengths)  # (B,) first tokens of each row, without the prefix
        self.width = int(self.lengths.max())
        self.used = np.full(len(lengths), self.width)  # (B,) used slots of each row
        self.prefix = prefix
        self.members: set[Any] = set()  # the runner's sequences in these rows
        self._layers, self._keep = layers, keep
        self._keys = self._values = torch.empty(0)  # (layers, B, L, K, D), allocated with the first keys
        self._places = torch.empty(
            0, dtype=torch.long
        )  # (B, L): position of each slot's token, counted after the prefix

    def begin(self, reserve: int = 0) -> Attend:
        """Causal attention of the rows' first tokens, which come row after row in one stream (T,); `reserve` is the
        number of further slots to allocate per row."""
        rows, room = len(self.lengths), self.width + reserve
        row = torch.arange(rows).repeat_interleave(self.lengths)  # (T,)
        inside = torch.cat([torch.arange(length) for length in self.lengths.tolist()])
        slot, place = row * room + inside, row * self.width + inside
        whole = len(row) == rows * self.width  # no row is shorter than another

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
            if not self._keys.numel():
                self._allocate(k, rows, room)
                self._places.view(-1)[slot] = inside
            keys, values = self._write(layer, slot, k, v, self.width)
            groups = q.shape[1] // k.shape[1]
            padded = q if whole else q.new_zeros(rows * self.width, *q.shape[1:]).index_copy_(0, place, q)
            out, weight = _causal(
                padded.unflatten(0, (rows, self.width)).transpose(1, 2),  # (B, H, width, D)
                _repeat(keys, groups), _repeat(values, groups), window,
            )  # fmt: skip
            out, weight = out.transpose(1, 2).flatten(0, 1), weight.transpose(1, 2).flatten(0, 1)
            out, weight = (out, weight) if whole else (out[place], weight[place])
            return self._join(layer, q, out, weight, inside, window)

        return attend

    def extend(self, row: Tensor, place: Tensor | None, slot: Tensor, positions: Tensor, mask: Tensor) -> Attend:
        """Attention of further tokens at `positions` (T,): token t goes to slot `slot[t]` of row `row[t]`, and attends
        to the slots where `mask` (B, m, S) is 0 (elsewhere -inf). `place` (T,) is its index among the B × m queries,
        None when T = B × m in order."""
        rows, size, seen = mask.shape
        self._grow(seen)
        flat = row * self._keys.shape[2] + slot
        inside = positions if self.prefix is None else positions - self.prefix.length
        self._places[row, slot] = inside
        masks: dict[int | None, Tensor] = {}  # (B, 1, G * m, S), the same for all layers of one window

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
            keys, values = self._write(layer, flat, k, v, seen)
            K, D = k.shape[1:]
            G = q.shape[1] // K
            if window not in masks:
                narrow = mask if window is None else self._narrowed(mask, row, place, inside, window)
                masks[window] = narrow.repeat(1, G, 1)[:, None]
            padded = q if place is None else q.new_zeros(rows * size, *q.shape[1:]).index_copy_(0, place, q)
            folded = padded.view(rows, size, K, G, D).permute(0, 2, 3, 1, 4).reshape(rows, K, G * size, D)
            out, weight = _flash(folded, keys, values, 0.0, False, attn_mask=masks[window])
            out = out.view(rows, K, G, size, D).permute(0, 3, 1, 2, 4).reshape(rows * size, K * G, D)
            weight = weight.view(rows, K, G, size).permute(0, 3, 1, 2).reshape(rows * size, K * G)
            if place is not None:
                out, weight = out[place], weight[place]
            return self._join(layer, q, out, weight, inside, window)

        return attend

    def select(self, rows: Tensor) -> None:
        """Keep only these rows (B',)."""
        self.lengths, self.used = self.lengths[rows], self.used[rows.numpy()]
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]
        self._places = self._places[rows]

    def row_as_prefix(self, row: int, slots: Sequence[int]) -> Prefix:
        """The block's prefix and the keys and values of some slots of a row, as a prefix for other rows."""
        keys, values = (x[:, row, slots].transpose(1, 2)[:, None].contiguous() for x in (self._keys, self._values))
        if self.prefix is not None:
            keys, values = torch.cat((self.prefix.keys, keys), 3), torch.cat((self.prefix.values, values), 3)
        return Prefix(keys, values)

    def _grow(self, slots: int) -> None:
        """Allocate at least `slots` slots per row."""
        have = self._keys.shape[2]
        if slots > have:
            shape = list(self._keys.shape)
            shape[2] = max(slots, have + have // 2) - have
            self._keys = torch.cat((self._keys, self._keys.new_zeros(shape)), 2)
            self._values = torch.cat((self._values, self._values.new_zeros(shape)), 2)
            self._places = torch.cat((self._places, self._places.new_zeros(shape[1:3])), 1)

    def _allocate(self, k: Tensor, rows: int, room: int) -> None:
        """Allocate zeroed slots, as a masked slot is still multiplied by a weight of 0; one layer's if not `keep`."""
        shape = (self._layers if self._keep else 1, rows, room, *k.shape[1:])
        self._keys, self._values = k.new_zeros(shape), k.new_zeros(shape)
        self._places = torch.zeros(rows, room, dtype=torch.long)
        if not self._keep:
            self._keys, self._values = (x.expand(self._layers, *shape[1:]) for x in (self._keys, self._values))

    def _write(self, layer: int, flat: Tensor, k: Tensor, v: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """Write k and v (T, K, D) into their slots; returns the layer's first `seen` slots, (B, K, S, D) each."""
        keys, values = self._keys[layer], self._values[layer]  # (B, L, K, D)
        keys.flatten(0, 1).index_copy_(0, flat, k)
        values.flatten(0, 1).index_copy_(0, flat, v)
        return keys[:, :seen].transpose(1, 2), values[:, :seen].transpose(1, 2)

    def _narrowed(self, mask: Tensor, row: Tensor, place: Tensor | None, inside: Tensor, window: int) -> Tensor:
        """The mask (B, m, S) of `extend` with the slots before each token's window masked too."""
        rows, size, seen = mask.shape
        far = inside[:, None] - self._places[row, :seen] >= window  # (T, S)
        if place is not None:
            far = torch.zeros(rows * size, seen, dtype=torch.bool).index_copy_(0, place, far)
        return mask.masked_fill(far.view(rows, size, seen), -torch.inf)

    def _join(self, layer: int, q: Tensor, out: Tensor, weight: Tensor, inside: Tensor, window: int | None) -> Tensor:
        """Combine attention to the rows' own slots, out (T, H, D) with log-weights (T, H), with attention to the
        prefix; `inside` (T,) is each token's position after the prefix."""
        if self.prefix is None:
            return out
        P, keys, values = self.prefix.length, self.prefix.keys[layer], self.prefix.values[layer]  # (1, K, P, D)
        if window is None or P + int(inside.max()) < window:
            return _joined(q, out, weight, keys, values)
        near = (inside < window - 1).nonzero().flatten()  # the prefix is outside the window of the others
        if not len(near):
            return out
        low = max(0, P - window + 1)
        far = P + inside[near, None] - torch.arange(low, P) >= window  # (N, P - low)
        mask = torch.zeros(far.shape).masked_fill_(far, -torch.inf)
        part = _joined(q[near], out[near], weight[near], keys[:, :, low:], values[:, :, low:], mask)
        return out.index_copy(0, near, part)


def _joined(q: Tensor, out: Tensor, weight: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention to keys (1, K, P, D), combined with out (T, H, D) with log-weights (T, H); `mask` is (T, P)."""
    T, H, D = q.shape
    K = keys.shape[1]
    folded = q.view(T, K, H // K, D).permute(1, 2, 0, 3).reshape(1, K, -1, D)  # all rows' queries in one call
    masks = None if mask is None else mask.repeat(H // K, 1)[None, None]
    before, before_weight = _flash(folded, keys, values, 0.0, False, attn_mask=masks)
    before = before.view(H, T, D).transpose(0, 1)
    share = torch.sigmoid(weight - before_weight.reshape(H, T).T)  # of `out` in the combined attention
    return torch.lerp(before, out, share.to(out.dtype)[..., None])


def _causal(q: Tensor, keys: Tensor, values: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """Causal attention of S queries and its log-weights: (B, H, S, D) and (B, H, S)."""
    if window is None or q.shape[2] <= window:
        return _flash(q, keys, values, 0.0, True)
    parts = [
        _flash(
            q[:, :, first:last], keys[:, :, low:last], values[:, :, low:last], 0.0, False,
            attn_mask=window_mask(first, last, low, window),
        )
        for first, last, low in query_blocks(0, q.shape[2], window)
    ]  # fmt: skip
    return torch.cat([out for out, _ in parts], 2), torch.cat([weight for _, weight in parts], 2)


def _repeat(x: Tensor, groups: int) -> Tensor:
    """(B, K, S, D) -> (B, H, S, D): each key/value head is repeated for its group of query heads."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
