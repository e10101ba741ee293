"""What a wheel is made of: its bill of materials (CycloneDX 1.6), and the licences of what others wrote in it.

    python native/bill_of_materials.py --notices > native/THIRD-PARTY.txt

The build backend writes the bill into each wheel (PEP 770). It depends on the sources and the compiler alone, so two
builds give the same bytes: its number is derived from its content, its time is SOURCE_DATE_EPOCH.
"""

import argparse
import base64
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = uuid.UUID("5f0c3a52-6b0e-5b3e-9a53-0f8f5f0a2f46")  # drawn once; the numbers of bills are derived from it
CHOSEN = {"dompurify": "Apache-2.0"}  # of the licences that a package offers, the one that riyaz takes
INSIDE = "in this wheel"
BESIDE = "installed beside it"


def bill(engine: bool) -> dict[str, Any]:
    """The bill of a wheel, with or without the C++ `engine`, as a document of CycloneDX 1.6. Raises OSError or KeyError
    where pyproject.toml or page/package-lock.json lacks what it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    itself = component(project["name"], project["version"], "pypi", project["license"])
    parts = [*page_packages(), *(compiled_in() if engine else []), *declared(project)]
    names = sorted({part["bom-ref"] for part in parts})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": itself},
        "components": sorted(parts, key=lambda part: part["bom-ref"]),
        "dependencies": [{"ref": itself["bom-ref"], "dependsOn": names}, *({"ref": name} for name in names)],
    }
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        document["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(document, sort_keys=True))}"
    return document


def component(name: str, version: str | None, index: str, licence: str | None, **more: Any) -> dict[str, Any]:
    """One component: its package URL in the index `pypi`, `npm` or `generic`, its version and licence if known."""
    url = f"pkg:{index}/{name.replace('@', '%40')}" + (f"@{version}" if version else "")
    made: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "purl": url, **more}
    if version:
        made["version"] = version
    if licence:
        several = " " in licence
        made["licenses"] = [{"expression": licence} if several else {"license": {"id": licence}}]
    return made


def held(where: str) -> dict[str, Any]:
    """Where a component is: in the wheel, or installed beside it."""
    return {"properties": [{"name": "riyaz:place", "value": where}]}


def page_packages() -> list[dict[str, Any]]:
    """The packages that are built into the page: those of its lock file that are neither for building nor optional."""
    lock = json.loads((ROOT / "page/package-lock.json").read_text(encoding="utf-8"))
    made = []
    for path, entry in lock["packages"].items():
        if path and not (entry.get("dev") or entry.get("optional") or entry.get("devOptional")):
            name = path.removeprefix("node_modules/")
            algorithm, _, digest = entry["integrity"].partition("-")
            hashes = [{"alg": algorithm.replace("sha", "SHA-"), "content": base64.b64decode(digest).hex()}]
            licence = CHOSEN.get(name, entry["license"])
            made.append(component(name, entry["version"], "npm", licence, hashes=hashes, **held(INSIDE)))
    return made


def compiled_in() -> list[dict[str, Any]]:
    """What the compiler put into the extension: nanobind, the hash map in it, and with Zig LLVM's C++ library."""
    made = [component("nanobind", importlib.metadata.version("nanobind"), "pypi", "BSD-3-Clause", **held(INSIDE))]
    policy = (robin_map() / "robin_growth_policy.h").read_text(encoding="utf-8")
    numbers = re.findall(r"#define TSL_RH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", policy)
    made.append(component("robin-map", ".".join(numbers), "generic", "MIT", **held(INSIDE)))
    if version := zig_clang():
        licence = "Apache-2.0 WITH LLVM-exception"
        made.append(component("libc++", version, "generic", licence, **held(INSIDE)))
    return made


def robin_map() -> Path:
    """The folder of robin-map's header files in nanobind."""
    spec = importlib.util.find_spec("nanobind")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "ext/robin_map/include/tsl"


def zig_clang() -> str | None:
    """The version of LLVM in Zig's compiler, whose C++ library is linked in; None for another compiler, which links to
    the library of the system."""
    compiler = os.environ.get("CXX")
    if not compiler:
        return None
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"clang version (\d+\.\d+\.\d+)", told)
    return version[1] if version and "zig" in told else None


def declared(project: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages that pyproject.toml names, with their range; those of an extra for users are optional."""
    extras = project["optional-dependencies"]
    users = {name: lines for name, lines in extras.items() if name not in ("test", "site", "wheels")}
    asked: dict[str, tuple[str, str]] = {line: (line, "required") for line in project["dependencies"]}
    for lines in users.values():
        asked |= {line: (line, "optional") for line in lines if not line.startswith("riyaz[") and line not in asked}
    made = []
    for requirement, scope in asked.values():
        name = re.split(r"[<>=]", requirement)[0].lower().replace("_", "-")
        part = component(name, None, "pypi", None, scope=scope, **held(BESIDE))
        part["properties"].append({"name": "riyaz:requirement", "value": requirement})
        made.append(part)
    return made


def notices() -> str:
    """The licences that what is compiled into the extension demands, with the texts that nanobind brings."""
    files = importlib.metadata.files("nanobind") or []
    nanobind = next(path for path in files if path.name == "LICENSE").read_text()
    header = (robin_map() / "robin_map.h").read_text(encoding="utf-8")
    comment = header.partition("/**")[2].partition("*/")[0]
    robin = "\n".join(line.strip().removeprefix("*").strip() for line in comment.strip().splitlines())
    parts = [
        f"nanobind (BSD-3-Clause)\n\n{nanobind.strip()}\n",
        f"robin-map (MIT)\n\n{robin.strip()}\n",
        "libc++ and libc++abi of LLVM (Apache-2.0 WITH LLVM-exception)\n\nIn wheels that Zig's compiler has linked. The"
        " exception allows such copies\nin compiled form without the text of the licence.\n",
    ]
    return "The C++ engine of Riyaz holds parts of these.\n\n" + f"\n{'-' * 78}\n\n".join(parts)


def main() -> None:
    """Prints the bill of a wheel with the engine, or the licences of what is compiled in."""
    parser = argparse.ArgumentParser(description="The bill of materials of riyaz's wheels.")
    parser.add_argument("--notices", action="store_true", help="print the licences of what is compiled in")
    print(notices() if parser.parse_args().notices else json.dumps(bill(engine=True), indent=1), end="")


if __name__ == "__main__":
    main()
