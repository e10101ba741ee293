"""The bill of materials of a wheel: valid CycloneDX, the same twice, and complete; the licences of what is shipped."""

import base64
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from load_script import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "native/bill_of_materials.py"
PAGE = ROOT / "src/riyaz/serve/static/THIRD-PARTY.txt"
materials = load_script("native/bill_of_materials.py")


def bill(engine: bool = True) -> dict[str, Any]:
    """The bill of this repository's wheel."""
    return materials.bill(engine)


def test_the_bill_is_valid_and_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill())) is None
    assert bill() == bill()
    wrong = bill() | {"components": [{"name": "no type"}]}
    assert validator.validate_str(json.dumps(wrong)) is not None
    assert bill()["serialNumber"] != bill(engine=False)["serialNumber"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert "timestamp" not in bill()["metadata"]


def test_every_declared_requirement_and_every_bundled_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = bill()["components"]
    assert len({part["bom-ref"] for part in parts}) == len(parts)
    ranges = {entry["value"] for part in parts for entry in part["properties"] if entry["name"] == "riyaz:requirement"}
    assert ranges >= {*project["dependencies"]} and "torch>=2.8,<3" in ranges
    inside = {part["name"]: part for part in parts if part["properties"][0]["value"] == materials.INSIDE}
    assert {"nanobind", "robin-map", "preact"} <= inside.keys()
    assert all("version" in part and part["licenses"] for part in inside.values())
    lock = json.loads((ROOT / "page/package-lock.json").read_text())["packages"]
    digest = base64.b64decode(lock["node_modules/preact"]["integrity"].removeprefix("sha512-")).hex()
    assert inside["preact"]["hashes"] == [{"alg": "SHA-512", "content": digest}]


def test_the_page_ships_the_licence_of_each_package_of_the_lock_file() -> None:
    heads = re.findall(r"^(@?[a-z][\w@/-]*) ([\d.]+) \((.+)\)$", PAGE.read_text(), re.MULTILINE)
    listed = {part["name"]: part["version"] for part in materials.page_packages()}
    assert {name: version for name, version, _ in heads} == listed
    taken = {name: licence.rpartition("taken under ")[2] for name, _, licence in heads}
    ours = {part["name"]: part["licenses"][0]["license"]["id"] for part in materials.page_packages()}
    assert taken == ours


def test_the_licences_of_what_is_compiled_in_are_those_of_the_packages() -> None:
    command = [sys.executable, str(SCRIPT), "--notices"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "native/THIRD-PARTY.txt").read_text() == made
    assert "Wenzel Jakob" in made and "Goetghebuer" in made


def test_zigs_compiler_brings_a_library_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for told, expected in (("clang version 20.1.2 (of zig-bootstrap)", "20.1.2"), ("clang version 19.1.7", None)):
        program = tmp_path / "compiler"
        program.write_text(f"#!/bin/sh\necho '{told}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("CXX", str(program))
        assert materials.zig_clang() == expected
