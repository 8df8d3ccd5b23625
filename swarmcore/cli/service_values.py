"""Values of the flags of `swarmctl service`: ports, mounts, ulimits, secrets and configs.

Pure. Every refusal is a ValueError whose text completes the sentence "invalid value for --flag: …".
"""

from __future__ import annotations

import re

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


def attachment(text: str) -> tuple[str, str]:
    """Read `name[:target]` of a secret or config; the target is the name where none is given."""
    name, colon, target = text.partition(":")
    if not name or (colon and not target):
        raise ValueError(f"{text!r} is not a name with a target (write it like password, or password:/run/pw)")
    return name, target or name
