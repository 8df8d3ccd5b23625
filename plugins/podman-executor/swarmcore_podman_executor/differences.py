"""Where Podman is not Docker. All of it is here; what reads an answer of the service asks this module. Pure.

- What can't be done because of a container's name or state is a 500, and only its cause tells.
- A removal answers 200 with an error inside; one with `force` first waits for the stop, unless it is told not to.
- A status has more names: a container that ended is `stopped` until it was cleaned up, one that was made and not
  started `created`, `configured` or `initialized`.
- Health checks need systemd's timers. A check with the interval 0 has no timer; then whoever asks for
  `/healthcheck` runs it, on every host in the same way: `health.py` does.
- A health event does not say how healthy, so nobody listens to it: who ran the check looks.
- An event's label filter is `name=value`, also where the value is empty.
- A bare image name is looked up by the host's configuration; here it means what it means to Docker.
- The stop signal is a number.
- With conmon before 2.1.7 nobody says that a container ran out of memory: it was just killed.
- The timestamps of logs have whole seconds.
- When a command ends before it has read its input, conmon resets the connection, the service may lose what the command
  wrote last, and says in the command's stderr only what its socket said.
- A limit that the host can't set fails when the container starts, so it is refused before, by the host's facts.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.plugin.containers import LABEL_TASK

Inspected = Mapping[str, Any]

NEWS: Final = {
    "type": ["container"],
    "event": ["died", "remove", "cleanup"],
    "label": [f"{LABEL_TASK}="],
}
REMOVE_NOW: Final = {"force": "true", "v": "true", "volumes": "true", "timeout": "0"}
"""What takes the volumes along is called `volumes` by some versions and `v` by others."""
KILLED: Final = 128 + 9
NO_TIMER: Final = 0
"""The interval of a health check that Podman leaves to whoever asks for it."""


_ATTACH_NOISE: Final = re.compile(rb"Error: (read|write) unixpacket @->/proc/self/fd/\d+/attach: [^\n]*\n?")
_NOT_STARTED: Final = re.compile(rb"Error: (?:runc|crun): ")
_CONTAINER: Final = re.compile(r" (?:on|for|of) container [0-9a-f]{64}\b")
_FIELDS: Final = (
    ("rlimit", "ulimits"),
    ('sysctl "', "sysctls"),
    ("workdir ", "dir"),
    ("supplemental groups", "groups"),
    ("setgroups", "groups"),
    ("unable to find user", "user"),
    ("unable to setup user", "user"),
    ("unknown capability", "capability_add"),
    ("unknown capability", "capability_drop"),
)
"""Of what the engine says when a container is made or started: some words, and the field that they are about."""
_NO_CHILD: Final = "can't get final child's PID"
"""What runc says of a process that died before it told why, such as for a score that it may not have."""
_TIMESTAMP: Final = re.compile(r"(?P<whole>[0-9-]+T[0-9:]+)(?:[.](?P<fraction>[0-9]+))?(?P<zone>Z|[+-][0-9:]+)")


def cause_of_death(found: Inspected, *, is_ours: bool) -> str:
    """Why a container ended that did not end well, as far as it is known. `is_ours`: we killed it ourselves."""
    state, limit = found["State"], (found.get("HostConfig") or {}).get("Memory") or 0
    if state.get("OOMKilled"):
        return "out of memory"
    if limit and int(state["ExitCode"]) == KILLED and not is_ours:
        return f"killed, most likely out of memory: it may have {int(limit)} bytes"
    return str(state.get("Error") or "")


def refusal(message: str, spec: ContainerSpec) -> str:
    """Why a container can't be made or started: the engine's words, with the name of the field that they are about."""
    # The same for each try: an id would make it another reason each time.
    words = " ".join(_CONTAINER.sub("", message).split())
    for pattern, field in _FIELDS:
        if pattern in words and getattr(spec, field):
            return f"container.{field}: {words}"
    if _NO_CHILD in words and spec.oom_score_adj < 0:
        return f"container.oom_score_adj: the engine can't lower it to {spec.oom_score_adj} here ({words})"
    return words


def is_name_taken(code: int, message: str) -> bool:
    return code == 409 or (code == 500 and "is already in use" in message)


def is_no_image(code: int, message: str) -> bool:
    return (code == 404 or code == 500) and ("image not known" in message or "no such image" in message.lower())


def is_not_running(code: int, message: str) -> bool:
    """Whether a signal found nothing to go to."""
    return code in (404, 409) or (code == 500 and "can only kill running containers" in message)


def command_words(said: bytes, before: bytes) -> bytes:
    """What is passed on of a piece of a command's stderr, by the piece before it."""
    found = _ATTACH_NOISE.fullmatch(said)
    if found is None:
        return said
    if found[1] == b"write" or _NOT_STARTED.match(before):
        return b""  # It reads no more, or never ran.
    return b"Warning: the command ended before it had read its input, and the engine may have lost its last output\n"


def removal_error(reports: object) -> str:
    """What went wrong in a removal that answered 200; empty where nothing did."""
    for report in reports if isinstance(reports, list) else []:
        error = report.get("Err") if isinstance(report, dict) else None
        if error:
            return str(error)
    return ""


MAX_SIGNAL_CHARACTERS: Final = 20


def signal_number(name: str) -> int | None:
    """The number of `SIGTERM`, `term`, `SIGRTMIN+3` or `15`; None where it is none."""
    text = name.upper().removeprefix("SIG")
    base, plus, offset = text.partition("+")
    if not text.isascii() or len(text) > MAX_SIGNAL_CHARACTERS:
        return None
    if text.isdigit():
        number = int(text)
    elif base == "RTMIN" and (not plus or offset.isdigit()):
        # Of the kernel: the C library keeps two for itself, and a container's may keep others.
        number = 34 + int(offset or 0)
    else:
        number = int(getattr(signal, f"SIG{text}", 0))
    return number if 1 <= number <= 64 else None


def normalized_image(image: str) -> str:
    """The image's full name: a bare one is Docker Hub's. Of tag and digest the digest counts; both are refused."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    if at:
        name = f"{head}{slash}{last.partition(':')[0]}"
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif first != "localhost" and "." not in first and ":" not in first:
        name = f"docker.io/{name}"
    return f"{name}{at}{digest}"


def log_timestamp_ns(text: str) -> int:
    """Nanoseconds since 1970 of `2026-11-25T00:58:48Z`, with or without a fraction. Raises ValueError."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise ValueError(f"not a timestamp: {text[:40]!r}")
    whole = datetime.fromisoformat(found["whole"] + found["zone"])
    return int(whole.timestamp()) * 1_000_000_000 + int((found["fraction"] or "")[:9].ljust(9, "0"))
