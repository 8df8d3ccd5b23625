"""The version line of both commands."""

from __future__ import annotations


def version_line(program: str) -> str:
    """`<program> swarmcore <version>`, in the three words that SwarmKit prints."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("swarmcore")
    except PackageNotFoundError:
        number = "unknown"
    return f"{program} swarmcore {number}"
