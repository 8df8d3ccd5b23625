"""What a failed pull means, told before the engine's own words, which often name neither image nor reason. Pure."""

from __future__ import annotations

from typing import Final

_MEANINGS: Final = (
    ("the node's disk is full", ("no space left on device", "disk quota exceeded")),
    (
        "no such image, or no access to it",
        ("repository does not exist or may require", "may require 'docker login'"),
    ),
    ("no such tag in the registry", ("manifest unknown", "manifest for ", "manifest not found")),
    ("no such image in the registry", ("name unknown", "repository name not known", "repository not found")),
    (
        "the registry refuses access",
        (
            "unauthorized",
            "authentication required",
            "no basic auth credentials",
            "invalid username/password",
            "incorrect username or password",
            "denied",
            "forbidden",
        ),
    ),
    (
        "the registry can't be reached",
        (
            "connection refused",
            "no such host",
            "timeout",
            "deadline exceeded",
            "no route to host",
            "network is unreachable",
            "connection reset",
            "server misbehaving",
            "tls:",
            "x509:",
            "server gave http response",
            ": eof",
        ),
    ),
    ("the registry failed", ("unexpected http status: 5", "received unexpected http status", "internal server error")),
    ("not a valid image name", ("invalid reference format",)),
)
"""What it means, and words that engines use for it; the first that fits."""


def pull_failure(image: str, words: str) -> str:
    """One line: the image, what it means where that is known, and the engine's words, once."""
    said = " ".join(words.split())
    lower = said.lower()
    meaning = next((text for text, marks in _MEANINGS if any(mark in lower for mark in marks)), "can't be pulled")
    return f"image {image!r}: {meaning}: {said}" if said else f"image {image!r}: {meaning}"
