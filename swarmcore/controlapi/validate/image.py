"""Image references in the grammar of Docker's registries: `redis`, `host:5000/team/app:1@sha256:…`."""

from __future__ import annotations

import re

MAX_REFERENCE = 1024
MAX_NAME = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"([A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*):([0-9a-fA-F]{32,})", re.ASCII)
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)


def is_image_reference(text: str) -> bool:
    """Whether an engine would understand `text` as the name of an image."""
    if not text or len(text) > MAX_REFERENCE or _IDENTIFIER.fullmatch(text):
        return False
    name, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        return False
    first, slash, rest = name.partition("/")
    if slash and (any(char in first for char in ".:[") or first == "localhost" or first.lower() != first):
        domain, path = first, rest
        if not _DOMAIN.fullmatch(domain):
            return False
    else:
        domain, path = "", name
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        return False
    return _PATH.fullmatch(path) is not None and len(domain) + len(path) + 1 <= MAX_NAME


def registry_of(reference: str) -> str:
    """The registry that an image comes from, as it is written; `docker.io` where none is."""
    first, slash, _ = reference.partition("/")
    is_domain = any(char in first for char in ".:[") or first == "localhost" or first.lower() != first
    return first if slash and is_domain and first != "index.docker.io" else "docker.io"


def _is_digest(text: str) -> bool:
    match = _DIGEST.fullmatch(text)
    return match is not None and _HEX_LENGTHS.get(match.group(1), len(match.group(2))) == len(match.group(2))
