"""Memory of large results, in blocks that glibc can give to the next result of the same size.

Torch asks glibc for aligned memory. To align a block glibc asks itself for 96 bytes more than it keeps, so that a freed
block is too small for the next tensor of the same size (up to 2.41 at least): a quarter of what a forward pass of LoRA
held were such holes. Numpy asks for unaligned memory, whose blocks fit again.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from riyaz.hardware import trim
from riyaz.system import c_function

ALIGNED = 64  # bytes: a line of the cache, and a register of AVX-512
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
TRIM_NEVER, TRIM_USUAL = 2**31 - 1, 2**26  # bytes of freed memory that the heap keeps while training, and after
LARGEST = (2**26, 2**25)  # bytes of a block from glibc's heap; larger ones are the system's; older glibc takes no 2**26
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


@contextmanager
def retained() -> Iterator[None]:
    """Inside the `with` block glibc keeps what is freed instead of giving it back to the system, from which each new
    page costs microseconds; a step of training frees and takes hundreds of MB. Elsewhere nothing happens."""
    mallopt = c_function("mallopt")
    if mallopt and any(mallopt(MMAP_THRESHOLD, largest) for largest in LARGEST):
        mallopt(TRIM_THRESHOLD, TRIM_NEVER)
    try:
        yield
    finally:
        if mallopt:
            mallopt(MMAP_THRESHOLD, LARGEST[-1])  # up to which glibc itself raises it
            mallopt(TRIM_THRESHOLD, TRIM_USUAL)
        trim()
