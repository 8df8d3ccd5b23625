"""What `docker login` stored on this machine for an image's registry, as engines take it (`--with-registry-auth`)."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from swarmcore.cli.command_line import CliError

DOCKER_HUB = "https://index.docker.io/v1/"
HELPER_SECONDS = 15.0
MAX_CONFIG_BYTES = 1024 * 1024


def registry_of(image: str) -> str:
    """The registry as Docker's configuration names it: the first part of the reference where that is a host."""
    first, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in ("docker.io", "index.docker.io") else DOCKER_HUB


def registry_auth(image: str) -> str:
    """The `X-Registry-Auth` of an image. Raises CliError where nothing is stored, or it can't be read."""
    registry = registry_of(image)
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    config = _config(folder / "config.json")
    helper = _mapping(config, "credHelpers").get(registry) or config.get("credsStore")
    entry = _from_helper(str(helper), registry) if helper else _stored(_mapping(config, "auths"), registry)
    if entry is None:
        where = "Docker Hub" if registry == DOCKER_HUB else registry
        raise CliError(f"--with-registry-auth: no login for {where} in {folder}/config.json: `docker login` makes one")
    return base64.urlsafe_b64encode(json.dumps({**entry, "serveraddress": registry}).encode()).decode()


def _config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CliError(f"--with-registry-auth: {path}: {error.strerror}") from None
    try:
        found = json.loads(text) if len(text) <= MAX_CONFIG_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CliError(f"--with-registry-auth: {path} is not a configuration of Docker's client")
    return found


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _stored(auths: dict[str, Any], registry: str) -> dict[str, str] | None:
    """Docker writes the registry bare, or as a URL."""
    for name, entry in auths.items():
        if registry in (name, re.sub(r"^https?://|/.*$", "", name)) and isinstance(entry, dict):
            return _opened(entry)
    return None


def _opened(entry: dict[str, Any]) -> dict[str, str] | None:
    token = entry.get("identitytoken")
    try:
        user, _, password = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise CliError(
            "--with-registry-auth: the stored login is not readable: `docker login` makes a new one"
        ) from None
    if token:
        return {"username": user, "identitytoken": str(token)}
    return {"username": user, "password": password.rstrip("\0")} if user else None


def _from_helper(helper: str, registry: str) -> dict[str, str] | None:
    """Ask a credential helper, as Docker's client does. What it prints is never shown: it may hold the password."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise CliError(f"--with-registry-auth: {helper!r} is no credential helper")
    program = f"docker-credential-{helper}"
    try:
        answer = subprocess.run(
            [program, "get"], input=registry, capture_output=True, text=True, timeout=HELPER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "no answer in time" if isinstance(error, subprocess.TimeoutExpired) else str(error.strerror)
        raise CliError(f"--with-registry-auth: {program}: {reason}") from None
    try:
        found = json.loads(answer.stdout) if answer.returncode == 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.get("Secret"):
        return None
    if found.get("Username") == "<token>":
        return {"identitytoken": str(found["Secret"])}
    return {"username": str(found.get("Username") or ""), "password": str(found["Secret"])}
