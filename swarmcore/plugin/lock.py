"""`plugins.lock`: the operator's list of the plugins that may be loaded, and exactly which ones.

It says what is allowed to run with the manager's rights. It is no sandbox: what is on the list runs unhindered.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import importlib_metadata

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.requirement import normal_name

HEADER = """\
# Plugins that may be loaded on this machine. Written by `swarmctl plugins lock`; anything else is blocked.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPlugin:
    """One allowed plugin: an entry point's name, and the distribution that it must come from."""

    name: str
    distribution: str
    version: str
    record: str
    """`sha256:` and the hash of the distribution's RECORD; empty where there is none."""


def record_hash(distribution: importlib_metadata.Distribution) -> str:
    """The hash of a distribution's RECORD, which in turn has the hash of each of its files."""
    text = distribution.read_text("RECORD")
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text is not None else ""


@dataclass(frozen=True, slots=True)
class PluginLock:
    """What is allowed. Without a lock everything installed is."""

    plugins: tuple[LockedPlugin, ...]

    @classmethod
    def read(cls, path: Path) -> PluginLock:
        """Read a lock file; raises ConfigurationError with the file's name."""
        try:
            entries = tomllib.loads(path.read_text())["plugin"]
            plugins = tuple(
                LockedPlugin(
                    name=str(entry["name"]),
                    distribution=str(entry["distribution"]),
                    version=str(entry["version"]),
                    record=str(entry["record"]),
                )
                for entry in entries
            )
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"plugin lock {str(path)!r} can't be read ({error}): write it again with `swarmctl plugins lock`"
            ) from error
        return cls(plugins)

    def text(self) -> str:
        """The lock as a file's contents."""
        lines = [HEADER]
        for plugin in sorted(self.plugins, key=lambda each: (each.name, each.distribution)):
            # A JSON string is a TOML basic string.
            lines.append("[[plugin]]")
            lines.extend(
                f"{key} = {json.dumps(getattr(plugin, key))}" for key in ("name", "distribution", "version", "record")
            )
            lines.append("")
        return "\n".join(lines)

    def claimant(self, name: str) -> str | None:
        """The distribution that may provide the plugin `name`, in normal form."""
        for plugin in self.plugins:
            if plugin.name == name:
                return normal_name(plugin.distribution)
        return None

    def objection(self, name: str, distribution: importlib_metadata.Distribution) -> str | None:
        """Why this distribution's plugin may not be loaded; None where it may."""
        listed = [plugin for plugin in self.plugins if plugin.name == name]
        if not listed:
            return "not in the plugin lock"
        for plugin in listed:
            if normal_name(plugin.distribution) != normal_name(distribution.name):
                continue
            if plugin.version != distribution.version:
                return f"the plugin lock has version {plugin.version}, installed is {distribution.version}"
            if plugin.record != record_hash(distribution):
                return "its files are not those of the plugin lock (RECORD differs)"
            return None
        return f"the plugin lock names distribution {listed[0].distribution!r} for it"


def lock_installed(entry_points: Iterable[importlib_metadata.EntryPoint]) -> PluginLock:
    """A lock of what is installed now."""
    return PluginLock(
        tuple(
            LockedPlugin(
                name=point.name,
                distribution=point.dist.name,
                version=point.dist.version,
                record=record_hash(cast("importlib_metadata.Distribution", point.dist)),
            )
            for point in entry_points
            if point.dist is not None
        )
    )
