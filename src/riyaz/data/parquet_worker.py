"""The process that tries a Parquet or Arrow file: `python -m riyaz.data.parquet_worker FILE parquet|arrow`, started by
parquet.py.

A few kilobytes can decode to gigabytes before pyarrow gives anything back, whatever the file says of its sizes, and
a damaged file can end the process. So this one limits its own memory and CPU time, reads the file as the other would
and writes one line.
"""

import os
import sys
from pathlib import Path

from riyaz.confined import confine, limit_cpu

MEMORY_MIB, MEMORY_PER_BYTE = 1024, 2  # of address space: pyarrow with one batch, and twice the file
SECONDS = 120  # of CPU time
READ, TOO_LARGE = b"read\n", b"too large\n"


def memory_mib(path: Path) -> int:
    """The address space that reading a file may need, in MiB."""
    return MEMORY_MIB + MEMORY_PER_BYTE * path.stat().st_size // 2**20


def main() -> None:
    """Reads the file."""
    path, kind = Path(sys.argv[1]), sys.argv[2]
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve address space
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    from riyaz.data import arrow_batches

    answer = READ
    try:
        with pyarrow.memory_map(str(path)) as source:
            confine(memory_mib(path))
            limit_cpu(SECONDS)
            for _ in arrow_batches.batches(path, kind, source):
                pass
    except MemoryError:
        answer = TOO_LARGE
    except Exception:  # whoever opens the file gets the same error
        pass
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main()
