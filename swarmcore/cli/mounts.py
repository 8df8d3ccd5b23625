"""`--mount type=volume,source=data,target=/data`: mounts as users of Docker write them.

Pure. Every refusal is a ValueError whose text completes the sentence "invalid value for --mount: …".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from typing import Any

from swarmcore.api.types_pb2 import Mount
from swarmcore.cli.values import key_value, memory_bytes

_TYPES = {
    "bind": Mount.BIND,
    "volume": Mount.VOLUME,
    "tmpfs": Mount.TMPFS,
    "npipe": Mount.NPIPE,
    "cluster": Mount.CLUSTER,
}
_CONSISTENCY = {
    "default": Mount.DEFAULT,
    "consistent": Mount.CONSISTENT,
    "cached": Mount.CACHED,
    "delegated": Mount.DELEGATED,
}
_PROPAGATION = {name.lower(): number for name, number in Mount.BindOptions.Propagation.items()}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SWITCHES = ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src")


def mount(text: str) -> Mount:
    """Read comma-separated `key=value`; the type is `volume` where none is given."""
    made = Mount(type=Mount.VOLUME)
    words = _words(text)
    for key, value in words:
        if key == "type":
            made.type = _one_of(_TYPES, key, value, text)
    for key, value in words:
        _set(made, key, value, text)
    if not made.target:
        raise ValueError(f"{text!r} has no target (write it like type=volume,source=data,target=/data)")
    if made.type in (Mount.BIND, Mount.NPIPE, Mount.CLUSTER) and not made.source:
        raise ValueError(f"{text!r} has no source, which a mount of type {Mount.Type.Name(made.type).lower()} needs")
    if made.type == Mount.TMPFS and made.source:
        raise ValueError(f"{text!r} has a source: a tmpfs has none")
    return made


def _words(text: str) -> list[tuple[str, str]]:
    """Keys in lower case, with their values; a switch without a value is on."""
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise ValueError(f"{text!r} is not a list of key=value (write it like type=bind,source=/a,target=/b)") from None
    words = []
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        key = _ALIASES.get(key, key)
        if not equals:
            if key not in _SWITCHES:
                raise ValueError(f"{text!r} has {field!r}, which is no key=value")
            value = "true"
        words.append((key, value))
    return words


def _set(made: Mount, key: str, value: str, text: str) -> None:
    kind, _, _ = key.partition("-")
    if kind in ("bind", "volume", "tmpfs") and made.type != _TYPES[kind]:
        raise ValueError(f"{text!r} has {key!r}, which is for mounts of type {kind}")
    setter = _SETTERS.get(key)
    if setter is not None:
        setter(made, value, text)
    elif key != "type":
        raise ValueError(f"{text!r} has {key!r}: there are {', '.join(['type', *_SETTERS])}")


def _one_of(words: Mapping[str, Any], key: str, value: str, text: str) -> Any:
    if value.lower() not in words:
        raise ValueError(f"{text!r} has the {key} {value!r}: there are {', '.join(words)}")
    return words[value.lower()]


def _switch(value: str, text: str) -> bool:
    if value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise ValueError(f"{text!r} has {value!r}, which is neither true nor false")


def _source(made: Mount, value: str, text: str) -> None:
    if made.type == Mount.BIND and not value.startswith("/"):
        raise ValueError(f"{text!r} has the source {value!r}: a bind mount's must be an absolute path, like /srv/data")
    made.source = value


def _target(made: Mount, value: str, text: str) -> None:
    if made.type != Mount.NPIPE and not value.startswith("/"):
        raise ValueError(f"{text!r} has the target {value!r}: it must be an absolute path, like /data")
    made.target = value


def _readonly(made: Mount, value: str, text: str) -> None:
    made.readonly = _switch(value, text)


def _consistency(made: Mount, value: str, text: str) -> None:
    made.consistency = _one_of(_CONSISTENCY, "consistency", value, text)


def _propagation(made: Mount, value: str, text: str) -> None:
    made.bind_options.propagation = _one_of(_PROPAGATION, "bind-propagation", value, text)


def _recursive(made: Mount, value: str, text: str) -> None:
    options = made.bind_options
    if value == "disabled":
        options.nonrecursive = True
    elif value == "writable":
        options.readonlynonrecursive = True
    elif value == "readonly":
        options.readonlyforcerecursive = True
    elif value != "enabled":
        raise ValueError(
            f"{text!r} has the bind-recursive {value!r}: there are enabled, disabled, writable and readonly"
        )


def _nonrecursive(made: Mount, value: str, text: str) -> None:
    made.bind_options.nonrecursive = _switch(value, text)


def _create_source(made: Mount, value: str, text: str) -> None:
    made.bind_options.createmountpoint = _switch(value, text)


def _nocopy(made: Mount, value: str, text: str) -> None:
    made.volume_options.nocopy = _switch(value, text)


def _driver(made: Mount, value: str, text: str) -> None:
    made.volume_options.driver_config.name = value


def _driver_option(made: Mount, value: str, text: str) -> None:
    key, option = key_value(value)
    made.volume_options.driver_config.options[key] = option


def _label(made: Mount, value: str, text: str) -> None:
    key, label = key_value(value)
    made.volume_options.labels[key] = label


def _subpath(made: Mount, value: str, text: str) -> None:
    made.volume_options.subpath = value


def _tmpfs_size(made: Mount, value: str, text: str) -> None:
    made.tmpfs_options.size_bytes = memory_bytes(value)


def _tmpfs_mode(made: Mount, value: str, text: str) -> None:
    if not re.fullmatch(r"[0-7]{1,5}", value):
        raise ValueError(f"{text!r} has the tmpfs-mode {value!r}: it is octal, like 1777")
    made.tmpfs_options.mode = int(value, 8)


_SETTERS: Mapping[str, Callable[[Mount, str, str], None]] = {
    "source": _source,
    "target": _target,
    "readonly": _readonly,
    "consistency": _consistency,
    "bind-propagation": _propagation,
    "bind-recursive": _recursive,
    "bind-nonrecursive": _nonrecursive,
    "bind-create-src": _create_source,
    "volume-nocopy": _nocopy,
    "volume-driver": _driver,
    "volume-opt": _driver_option,
    "volume-label": _label,
    "volume-subpath": _subpath,
    "tmpfs-size": _tmpfs_size,
    "tmpfs-mode": _tmpfs_mode,
}
