"""Machines for a test: network namespaces with their own address, processes, store and home, behind a real sshd.

What lies in `Machines.base` is each machine's own, on a tmpfs at the same path; only the folder `shared` in it is seen
by all. All of a machine ends with the test, however that ends: its first process reads a pipe of the test's.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from waiting import until

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PROGRAMS = ("sshd", "ssh", "ssh-keygen", "ip", "unshare", "nsenter", "mount")
PACKAGES = "apt-get install openssh-server openssh-client iproute2"
NETWORK = (198, 18)  # 198.18.0.0/15 is for the measuring of networks (RFC 2544)
# The first process of a machine: $1 is `base`, $2 sshd, $3 its settings, $4 its log
BEGIN = """
set -e
mount -t tmpfs none /run
mkdir -p /run/sshd /run/shared
mount --bind "$1/shared" /run/shared
mount -t tmpfs -o size=256m none "$1"
mkdir "$1/shared" "$1/store" "$1/home"
mount --bind /run/shared "$1/shared"
umount /run/shared
ip link set lo up
"$2" -f "$3" -E "$4"
echo ready
exec cat
"""


def lacking() -> str:
    """Why there can be no machines here; "" if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"no {', '.join(missing)} ({PACKAGES})"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    name = f"rzt{os.getpid()}"
    tried = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c",
             f"mount -t tmpfs none /run && ip link add {name} type veth peer name eth0"]  # fmt: skip
    if subprocess.run(tried, capture_output=True, check=False, env=_environment()).returncode != 0:
        return "this container makes no network namespaces"
    return ""


class Machine:
    """One machine, which `ssh` in `name` leads to."""

    def __init__(self, machines: "Machines", host: str, number: int) -> None:
        self.host, self.base = host, machines.base
        self.name = f"ssh -F {machines.keys / 'config'} {host}"
        self._link = f"rz{os.getpid()}{host}"[:15]
        home, own = (f"{NETWORK[0]}.{NETWORK[1] + number // 65536}.{number // 256 % 256}.{number % 256 + end}"
                     for end in (1, 2))  # fmt: skip
        settings = machines.keys / f"sshd-{host}"
        settings.write_text(f"""
Port 2222
HostKey {machines.keys / "host"}
AuthorizedKeysFile {machines.keys / "own.pub"}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
SetEnv {" ".join(f"{name}={value}" for name, value in machines.environment.items())}
""")
        with (machines.keys / "config").open("a") as config:
            config.write(f"Host {host}\nHostName {own}\n")
        self._unshare = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation",
             "private", "sh", "-c", BEGIN, "machine", str(self.base),
             str(shutil.which("sshd", path=PATH)), str(settings), str(machines.keys / f"log-{host}")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(),
        )  # fmt: skip
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == b"ready\n", "see the lines above"
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self._first = int(children[0])  # process of the machine
        self._cable = os.open(f"/proc/{self._first}/ns/net", os.O_RDONLY)  # it stays when all processes are killed
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self._first))
        _ip("addr", "add", f"{home}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        self.run("ip", "addr", "add", f"{own}/30", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self._wait(machines)

    def _wait(self, machines: "Machines") -> None:
        try:
            until(lambda: not subprocess.run([*self.name.split(), "true"], capture_output=True).returncode, "sshd")
        except AssertionError as error:
            raise AssertionError((machines.keys / f"log-{self.host}").read_text()) from error

    def run(self, *words: object) -> str:
        """Run a command on the machine, without ssh; returns what it prints."""
        inside = ["nsenter", "--net", "--mount", "--pid", "--target", str(self._first), *map(str, words)]
        return subprocess.run(inside, check=True, stdout=subprocess.PIPE, text=True, env=_environment()).stdout

    def copy(self, path: Path) -> None:
        """Copy a folder of home's below `base` to the machine's own disk, at the same path."""
        self.run("mkdir", "-p", path)
        packed = subprocess.Popen(["tar", "-C", str(path), "-c", "."], stdout=subprocess.PIPE)
        inside = ["nsenter", "--mount", "--target", str(self._first), "tar", "-C", str(path), "-x", "--no-same-owner"]
        subprocess.run(inside, check=True, stdin=packed.stdout)
        assert packed.wait() == 0

    def kill(self) -> None:
        """Kill all its processes at once, sshd too; it stays dead."""
        os.kill(self._first, signal.SIGKILL)
        self._unshare.wait()

    def close(self) -> None:
        """End the machine."""
        if self._unshare.poll() is None:
            self.kill()
        os.close(self._cable)
        subprocess.run(["ip", "link", "del", self._link], capture_output=True, check=False, env=_environment())


class Machines:
    """The machines of a test; home is the test's own, which has its own files below `base` too."""

    def __init__(self, folder: Path) -> None:
        self.base, self.keys = folder / "machine", folder / "keys"
        self.shared = self.base / "shared"
        self.shared.mkdir(parents=True)
        self.keys.mkdir(mode=0o700)
        self.environment: dict[str, object] = {  # of every machine
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RIYAZ_HOME": self.base / "store",
            "HOME": self.base / "home", "OPENBLAS_NUM_THREADS": 1,
        }  # fmt: skip
        for name in ("host", "own"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.keys / name)]
            subprocess.run(made, check=True, env=_environment())
        (self.keys / "config").write_text(f"""
Port 2222
User root
IdentityFile {self.keys / "own"}
IdentitiesOnly yes
BatchMode yes
ConnectTimeout 600
LogLevel ERROR
StrictHostKeyChecking no
UserKnownHostsFile {self.keys / "known"}
""")
        self._made: list[Machine] = []

    def add(self, host: str) -> Machine:
        """A new machine, called `host` by ssh."""
        number = 4 * ((16 * os.getpid() + len(self._made)) % 32768)
        self._made.append(Machine(self, host, number))
        return self._made[-1]

    def close(self) -> None:
        """End all of them."""
        for machine in self._made:
            machine.close()


@contextlib.contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """Machines, which end with the block."""
    made = Machines(folder)
    try:
        yield made
    finally:
        made.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": PATH}


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, env=_environment())
