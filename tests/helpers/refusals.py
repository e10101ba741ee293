"""What tests expect of a refusal."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from riyaz.errors import RiyazError


@contextmanager
def assert_refused(*parts: str) -> Iterator[None]:
    """The block raises a RiyazError of one printable line that holds every part."""
    with pytest.raises(RiyazError) as caught:
        yield
    line = str(caught.value)
    assert line.isprintable() and all(part in line for part in parts), line
