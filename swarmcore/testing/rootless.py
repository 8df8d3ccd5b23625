"""A room of its own for what runs as a user who is not root, such as a rootless Podman, where tests are root.

Nothing of the machine is changed, and nothing stays: the user, its ranges of subordinate ids and the permissive
/dev/net/tun are bind mounts in a mount namespace, and every process of the room ends with its process namespace. The
network is a namespace with nothing but loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarmcore.testing.engines import scratch

USER: Final = "swarmtester"
NUMBER: Final = 61_234
"""Of the user and its group; where the machine has such a one it is another inside."""
SUBORDINATES: Final = "1000000000:65536"
TUN: Final = (10, 200)
PROGRAMS: Final = ("unshare", "setpriv", "mount", "mknod", "ip", "catatonit", "newuidmap", "newgidmap")
_SCRIPT: Final = f"""\
set -eu
folder=$1 path=$2; shift 2
inside=$folder/inside home=$folder/home
mkdir -p "$inside" "$home" "$folder/run"
mount -t tmpfs -o mode=755 room "$inside"
mount -t tmpfs -o mode=700 room "$folder/run"
# Who may not enter a folder on the way to Python or to the tests finds there nothing but those.
while test "$1" != --; do
    closed=$1 wanted=$2; shift 2
    kept=$inside/kept$(echo "$wanted" | tr / _)
    mkdir "$kept"
    mount --rbind "$wanted" "$kept"
    grep -q " $closed tmpfs " /proc/mounts || mount -t tmpfs -o mode=755 room "$closed"
    mkdir -p "$wanted"
    mount --rbind "$kept" "$wanted"
done
shift
for name in passwd group; do grep -v ":{NUMBER}:" /etc/$name >"$inside/$name"; done
echo "{USER}:x:{NUMBER}:{NUMBER}::$home:/bin/sh" >>"$inside/passwd"
echo "{USER}:x:{NUMBER}:" >>"$inside/group"
for name in passwd group subuid subgid; do
    test -e /etc/$name || touch /etc/$name
    test -e "$inside/$name" || echo "{USER}:{SUBORDINATES}" >"$inside/$name"
    mount --bind "$inside/$name" /etc/$name
done
mknod -m 666 "$inside/tun" c {TUN[0]} {TUN[1]}
mount --bind "$inside/tun" /dev/net/tun
mount --make-rshared /
ip link set lo up
chown {NUMBER}:{NUMBER} "$home" "$folder/run"
chmod 700 "$home"
cd "$home"
exec setpriv --reuid {NUMBER} --regid {NUMBER} --clear-groups --inh-caps -all --bounding-set +all \\
    env -i PATH="$path" HOME="$home" TMPDIR="$home" USER={USER} LOGNAME={USER} XDG_RUNTIME_DIR="$folder/run" "$@"
"""


def missing_room() -> str | None:
    """Why no room can be made here; None where one can."""
    if os.geteuid() != 0:
        return "a room for another user needs root"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return None


def missing_ranges() -> str | None:
    """Why this user, who is not root, can't have namespaces of users; None where it can."""
    for program in ("newuidmap", "newgidmap"):
        if shutil.which(program) is None:
            return f"{program} is not installed (uidmap)"
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError as error:
            return f"{path}: {error.strerror}"
        if not any(line.split(":")[0] in (os.environ.get("USER"), str(os.geteuid())) for line in lines):
            return f"this user has no range in {path}"
    if not os.environ.get("XDG_RUNTIME_DIR"):
        return "XDG_RUNTIME_DIR is not set"
    return None


@dataclass(frozen=True, slots=True)
class Room:
    """Where commands run as the user; each call makes new namespaces on the same folder."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(
        self, *arguments: str, environment: Mapping[str, str] | None = None, wanted: Sequence[Path] = ()
    ) -> list[str]:
        """The command line, for root, that runs `arguments` in the room, in the user's home.

        The user's environment is PATH, HOME, TMPDIR, USER, LOGNAME and XDG_RUNTIME_DIR, and what is given here. It
        finds Python, this tree and what is `wanted` even in a folder that it may not enter. Whatever runs there is
        killed when this command ends or is killed.
        """
        namespaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child", "--net")
        veiled = [word for pair in veils([*_python(), *wanted]) for word in pair]
        more = [f"{name}={value}" for name, value in (environment or {}).items()]
        return [
            *("unshare", *namespaces, "catatonit", "--", "sh", "-c", _SCRIPT, "sh"),
            *(str(self.folder), os.environ.get("PATH", os.defpath), *veiled, "--"),
            *(*more, *arguments),
        ]


@contextlib.contextmanager
def room() -> Iterator[Room]:
    """A room that is gone afterwards, with all that was made in it."""
    with scratch() as folder:
        folder.chmod(0o755)
        yield Room(folder)


def veils(wanted: Sequence[Path]) -> list[tuple[str, str]]:
    """For each folder that is wanted and lies in one that others may not enter: that one, and itself."""
    found = []
    for path in dict.fromkeys(wanted):
        closed = [folder for folder in (*reversed(path.parents), path) if not _is_open(folder)]
        if closed and not any(other in path.parents for other in wanted):
            found.append((str(closed[0]), str(path)))
    return found


def _python() -> Sequence[Path]:
    """Where Python is, its packages and this tree."""
    tree = Path(__file__).resolve().parents[2]
    return [tree, *(Path(each).resolve() for each in (sys.base_prefix, sys.prefix, *site.getsitepackages()))]


def _is_open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
