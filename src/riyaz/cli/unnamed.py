"""The file behind an error of the operating system that names none: reading an open file fails so, opening one does
not."""

import errno
import io
import traceback
from pathlib import Path

OF_FILES = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EISDIR, errno.EFBIG)


def file_of(error: OSError) -> str:
    """The files that the innermost function with one had in hand, joined by "or"; empty where there is none, or where
    the error is not one of files."""
    if error.errno not in OF_FILES:
        return ""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        values = list(frame.f_locals.values())
        names = [value.name for value in values if isinstance(value, io.IOBase) and hasattr(value, "name")]
        named = [name for name in names if isinstance(name, str) and not name.startswith("<")]
        if named or (named := [str(value) for value in values if isinstance(value, Path) and not value.is_dir()]):
            return " or ".join(dict.fromkeys(named))
    return ""
