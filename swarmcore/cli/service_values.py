"""Values of the flags of `swarmctl service`: ports, mounts, ulimits, secrets and configs.

Pure. Every refusal is a ValueError whose text completes the sentence "invalid value for --flag: …".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from swarmcore.api.specs_pb2 import ContainerSpec
from swarmcore.api.types_pb2 import Mount, PlacementPreference, PortConfig, SpreadOver
from swarmcore.cli.values import memory_bytes

_PROTOCOLS = {"tcp": PortConfig.TCP, "udp": PortConfig.UDP, "sctp": PortConfig.SCTP}
_TMPFS_WORDS = ("ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev")


def _port(text: str, whole: str) -> tuple[int, str]:
    number, slash, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and 1 <= int(number) <= 65535):
        raise ValueError(f"{whole!r} has the port {number!r}, which is not between 1 and 65535")
    if slash and protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"{whole!r} has the protocol {protocol!r}: there are tcp, udp and sctp")
    return int(number), protocol.lower()


def port(text: str) -> PortConfig:
    """Read `name:target[/proto][:published[/proto]]`, for a port published on the task's own host."""
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        raise ValueError(f"{text!r} is not a port (write it like web:80, or web:80/tcp:8080)")
    if parts[0].isdigit():
        raise ValueError(f"{text!r} begins with a number, not with a name (write it like web:{parts[1]}:{parts[0]})")
    target, protocol = _port(parts[1], text)
    published, published_protocol = _port(parts[2], text) if len(parts) == 3 else (0, "")
    if protocol and published_protocol and protocol != published_protocol:
        raise ValueError(f"{text!r} names two protocols, {protocol} and {published_protocol}: give the same, or one")
    return PortConfig(
        name=parts[0],
        protocol=_PROTOCOLS[protocol or published_protocol or "tcp"],
        target_port=target,
        published_port=published,
        publish_mode=PortConfig.HOST,
    )


def _absolute(path: str, whole: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{whole!r} has the target {path!r}: it must be an absolute path, like /data")
    return path


def bind(text: str) -> Mount:
    """Read `source:target`."""
    source, colon, target = text.partition(":")
    if not source or not colon or ":" in target:
        raise ValueError(f"{text!r} is not a bind mount (write it like /host/path:/container/path)")
    return Mount(type=Mount.BIND, source=source, target=_absolute(target, text))


def volume(text: str) -> Mount:
    """Read `target`, for a volume without a name."""
    if ":" in text:
        raise ValueError(f"{text!r} has a colon: give only the path in the container, like /data")
    return Mount(type=Mount.VOLUME, target=_absolute(text, text))


def npipe(text: str) -> Mount:
    r"""Read `source:target` of a Windows named pipe, like `\\.\pipe\a:\\.\pipe\b`."""
    source, colon, target = text.partition(":")
    if not source or not colon or not target:
        raise ValueError(f"{text!r} is not a named pipe mount (write it like SOURCE:TARGET)")
    return Mount(type=Mount.NPIPE, source=source, target=target)


def tmpfs(text: str) -> Mount:
    """Read `/path[:size=64m,mode=1777,ro,noexec]`; sizes with k, m or g."""
    path, _, rest = text.partition(":")
    mount = Mount(type=Mount.TMPFS, target=_absolute(path, text))
    options = []
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if key == "size" and re.fullmatch(r"[0-9]+[kmg]?", value, re.IGNORECASE):
            mount.tmpfs_options.size_bytes = memory_bytes(value)
        elif key == "mode" and re.fullmatch(r"[0-7]{1,5}", value):
            mount.tmpfs_options.mode = int(value, 8)
        elif not equals and key in _TMPFS_WORDS:
            options.append(key)
            mount.readonly = mount.readonly or key == "ro"
        else:
            raise ValueError(f"{text!r} has {word!r}: there are size=64m, mode=1777, {', '.join(_TMPFS_WORDS)}")
    if "ro" in options and "rw" in options:
        raise ValueError(f"{text!r} is both ro and rw: give one")
    options = [word for word in options if word not in ("ro", "rw")]
    if options:
        mount.tmpfs_options.options = ",".join(options)
    return mount


def ulimit(text: str) -> ContainerSpec.Ulimit:
    """Read `name=soft[:hard]`; -1 is no limit."""
    match = re.fullmatch(r"([a-z]+)=(-1|\d{1,18})(?::(-1|\d{1,18}))?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a ulimit (write it like nofile=1024 or nofile=1024:2048)")
    soft = int(match.group(2))
    hard = int(match.group(3)) if match.group(3) is not None else soft
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueError(f"{text!r} has a soft limit above the hard one")
    return ContainerSpec.Ulimit(name=match.group(1), soft=soft, hard=hard)


def spread(text: str) -> PlacementPreference:
    """Read `spread=node.labels.KEY` or `spread=engine.labels.KEY`."""
    strategy, _, descriptor = text.partition("=")
    if strategy != "spread" or not re.fullmatch(r"(node|engine)\.labels\.\S+", descriptor, re.IGNORECASE):
        raise ValueError(f"{text!r} is not a preference (write it like spread=node.labels.rack)")
    return PlacementPreference(spread=SpreadOver(spread_descriptor=descriptor))


@dataclass(frozen=True, slots=True)
class Attachment:
    """A secret or config by its name, and the file that it becomes."""

    name: str
    target: str
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


def attachment(text: str) -> Attachment:
    """Read `name[:target]`, or `source=name,target=path,uid=0,gid=0,mode=0440`; the target is the name by default."""
    if "=" in text and ("," in text or text.partition("=")[0] in ("source", "src")):
        return _long_attachment(text)
    name, colon, target = text.partition(":")
    if not name or (colon and not target):
        raise ValueError(f"{text!r} is not a name with a target (write it like password, or password:/run/pw)")
    return Attachment(name, target or name)


def _long_attachment(text: str) -> Attachment:
    found: dict[str, str] = {}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        key = {"src": "source", "dst": "target", "destination": "target"}.get(key, key)
        if not equals or not value or key not in ("source", "target", "uid", "gid", "mode"):
            raise ValueError(f"{text!r} has {word!r}: there are source, target, uid, gid and mode")
        found[key] = value
    if "source" not in found:
        raise ValueError(f"{text!r} has no source (write it like source=password,target=/run/pw,mode=0400)")
    for key in ("uid", "gid"):
        if not re.fullmatch(r"\d{1,10}", found.get(key, "0"), re.ASCII):
            raise ValueError(f"{text!r} has the {key} {found[key]!r}: it must be a number")
    mode = found.get("mode", "0444")
    if not re.fullmatch(r"[0-7]{1,5}", mode):
        raise ValueError(f"{text!r} has the mode {mode!r}: it is octal, like 0440")
    return Attachment(
        found["source"],
        found.get("target", found["source"]),
        found.get("uid", "0"),
        found.get("gid", "0"),
        int(mode, 8),
    )
