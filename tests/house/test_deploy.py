"""The container, the balancer, the service and the release workflow: rules that need no container program."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMAND = ["serve", "smollm2-135m", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/riyaz-keys"]
TAGGED = re.compile(r"[\w.-]+/[\w./-]+@(v\d+(\.\d+)*|[0-9a-f]{40})")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: their names and arguments, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


def dockerfile_problems(text: str, root: Path) -> list[str]:
    """What is wrong with a Dockerfile: its user, its bases, downloads, sources that are not there."""
    listed = instructions(text)
    problems = []
    last_stage = max(place for place, (name, _) in enumerate(listed) if name == "FROM")
    users = [value for name, value in listed[last_stage:] if name == "USER"]
    if not users or users[-1].split(":")[0] in ("0", "root"):
        problems.append("the last stage runs as root")
    if not any(name == "HEALTHCHECK" for name, _ in listed[last_stage:]):
        problems.append("no HEALTHCHECK")
    bases = [value.partition("=")[2] for name, value in listed if name == "ARG" and value.startswith("BASE=")]
    bases += [value.split()[0] for name, value in listed if name == "FROM" and not value.startswith("$")]
    problems += [f"{base}: no version" for base in bases if base.endswith(":latest") or ":" not in base]
    for name, value in listed:
        if name == "ADD":
            problems.append(f"ADD {value}: use COPY")
        if name == "COPY" and "--from=" not in value:
            problems += [f"COPY: {path} is not there" for path in value.split()[:-1] if not (root / path).exists()]
    compilers = [value for name, value in listed[last_stage:] if name == "RUN" and "apt-get" in value]
    return problems + [f"the last stage installs: {value}" for value in compilers]


def locked(path: str) -> set[str]:
    """The names that a file of requirements fixes to one version, all with hashes."""
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", (ROOT / path).read_text(), flags=re.MULTILINE).strip())
    assert all(re.match(r"[a-z0-9.-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
    return {entry.split("==")[0] for entry in entries}


def plain(requirement: str) -> str:
    """The name of a requirement, as indexes write it."""
    return re.split(r"[<>=]", requirement)[0].lower().replace("_", "-")


def test_the_dockerfile_keeps_the_rules() -> None:
    assert dockerfile_problems(DOCKERFILE, ROOT) == []
    for wrong, problem in (
        (DOCKERFILE.replace("USER 10001:10001", "USER root"), "as root"),
        (DOCKERFILE.replace("HEALTHCHECK", "LABEL"), "HEALTHCHECK"),
        (DOCKERFILE.replace("python:3.13-slim-trixie", "python:latest"), "no version"),
        (DOCKERFILE.replace("COPY native", "ADD native"), "use COPY"),
        (DOCKERFILE.replace("COPY native", "COPY nothing"), "is not there"),
        (DOCKERFILE + "RUN apt-get install gcc\n", "installs"),
    ):
        assert any(problem in line for line in dockerfile_problems(wrong, ROOT)), problem


def test_what_the_dockerfile_copies_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [value for name, value in instructions(DOCKERFILE) if name == "COPY" and "--from=" not in value]
    assert {path for value in copies for path in value.split()[:-1]} == sent


def test_the_image_and_the_replicas_listen_beyond_loopback_with_keys_only() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    command = next(value for name, value in instructions(DOCKERFILE) if name == "CMD")
    assert yaml.safe_load(command)[: len(COMMAND)] == COMMAND
    for name in ("one", "two"):
        replica = compose["services"][name]
        assert replica["command"][: len(COMMAND)] == COMMAND and replica["read_only"] is True
        assert "ports" not in replica and replica["secrets"] == ["riyaz-keys"]
    assert not any(part.get("image", "").endswith(":latest") for part in compose["services"].values())


def test_the_image_holds_what_pyproject_asks_for() -> None:
    wanted = {plain(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["json"]]}
    assert wanted <= locked("deploy/requirements.txt")
    assert {"cibuildwheel", "build"} <= locked(".github/release-requirements.txt")


def test_the_balancer_is_that_of_the_guide_with_names_for_addresses() -> None:
    page = (ROOT / "docs/from-one-machine-to-a-thousand.md").read_text()
    guide = re.findall(r"^```haproxy\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0].splitlines()
    ours = (ROOT / "deploy/haproxy.cfg").read_text().splitlines()
    other = [line for line in guide if line not in ours]
    assert [line.split()[0] for line in other] == ["default-server", "server", "server"], other


def test_the_release_workflow_has_few_rights_and_versions_for_its_actions() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert workflow["permissions"] == {}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(TAGGED.fullmatch(step["uses"]) for step in steps if "uses" in step)
    writing = {name for name, job in workflow["jobs"].items() if "write" in job["permissions"].values()}
    assert writing == {"publish"} and "secrets." not in str(workflow)


def test_the_citation_has_the_version_and_licence_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


def test_the_service_is_closed_up_as_far_as_systemd_can_tell(tmp_path: Path) -> None:
    unit = (ROOT / "deploy/riyaz.service").read_text()
    assert {"DynamicUser=yes", "MemoryDenyWriteExecute=yes", "ProtectSystem=strict"} <= {*unit.splitlines()}
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze; apt-get install systemd")
    command = [program, "security", "--offline=true", "--no-pager", "--threshold=30"]
    for text, status in ((unit, 0), ("[Service]\nExecStart=/bin/true\n", 1)):
        (tmp_path / "riyaz.service").write_text(text)
        told = subprocess.run([*command, str(tmp_path / "riyaz.service")], capture_output=True, text=True)
        assert (told.returncode != 0) == bool(status), told.stdout[-300:] + told.stderr


def test_haproxy_takes_the_configuration() -> None:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("no haproxy; apt-get install haproxy")
    told = subprocess.run([program, "-c", "-f", str(ROOT / "deploy/haproxy.cfg")], capture_output=True, text=True)
    assert told.returncode == 0 and "WARNING" not in told.stderr, told.stderr
