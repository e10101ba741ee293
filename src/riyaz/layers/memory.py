"""Memory of large results, in blocks that glibc can give to the next result of the same size.

Torch asks glibc for aligned memory. To align a block glibc asks itself for 96 bytes more than it keeps, so that a freed
block is too small for the next tensor of the same size (up to 2.41 at least): a quarter of what a forward pass of LoRA
held were such holes. Numpy asks for unaligned memory, whose blocks fit again.
"""

import ctypes
import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# A matrix product for every number of tokens is kept by oneDNN, half a MB each: read when it is first called.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

ALIGNED = 64  # bytes: a line of the cache, and a register of AVX-512
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 2**31 - 1  # bytes of freed memory that the process keeps
LARGEST = 2**26  # bytes of a block from glibc's heap; larger ones are the system's
LARGE = 2**20  # bytes from which on holes matter more than the 10 microseconds that this takes


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor whose numbers are still to be written."""
    numbers = math.prod(shape)
    if numbers * dtype.itemsize < LARGE:
        return torch.empty(shape, dtype=dtype)
    block = np.empty(numbers * dtype.itemsize + ALIGNED, np.uint8)
    offset = -block.__array_interface__["data"][0] % ALIGNED
    # `data`, since autograd takes no view that is changed in place as the result of a function
    return torch.frombuffer(block, dtype=dtype, count=numbers, offset=offset).view(shape).data


def empty_like(x: Tensor) -> Tensor:
    """`empty` of the shape and type of x."""
    return empty(x.shape, x.dtype)


def keep() -> None:
    """Have glibc keep what is freed instead of giving it back to the system, from which each new page costs
    microseconds; a step of training frees and takes hundreds of MB. Elsewhere nothing happens."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)


def trim() -> None:
    """Give back to the system what is freed."""
    if malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        malloc_trim(0)
