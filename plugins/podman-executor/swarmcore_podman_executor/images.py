"""Images of a Podman engine: looked for, and pulled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import requests
from podman.errors import PodmanError

from swarmcore.plugin.engine_calls import EngineError, message_of
from swarmcore.plugin.executor import TaskRejectedError, TemporaryError
from swarmcore.plugin.image_pulls import ImagePulls
from swarmcore.plugin.pull_failures import pull_failure
from swarmcore_podman_executor.differences import normalized_image
from swarmcore_podman_executor.engine import Engine, request

MAX_KNOWN: Final = 256
PULL_SECONDS: Final = 300.0
"""A registry that says nothing for so long has failed."""
OWN_WORDS: Final = "Trying to pull"
"""What the engine says before it has heard anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here."""

    reference: str
    """By which the engine finds it."""
    health: Mapping[str, Any] = field(default_factory=dict)
    """Its own health check, as in a Dockerfile."""


class Images(ImagePulls):
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("podman")
        self._engine = engine
        self._known: dict[str, Image] = {}
        """By the name that the task gives it, as it was found last."""

    async def get(self, image: str, registry_auth: str) -> Image:
        """Have the image here, as `fetch` does, and tell what the engine knows of it."""
        await self.fetch(image, registry_auth)
        if image not in self._known and not await self._is_here(image):
            raise TemporaryError(f"image {image!r} is gone again")
        return self._known[image]

    def doubt(self, image: str, registry_auth: str) -> bool:
        self._known.pop(image, None)
        return super().doubt(image, registry_auth)

    async def _is_here(self, image: str) -> bool:
        full = normalized_image(image)
        for reference in dict.fromkeys((full, image)):
            try:
                found = await self._engine.call("GET", f"/images/{quote(reference, safe='/:@')}/json")
            except EngineError as error:
                if error.code == 404:
                    continue
                if reference == full:
                    raise TaskRejectedError(str(error)) from error
                # Not even a name to this engine.
                continue
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[image] = Image(reference=reference, health=found.get("Healthcheck") or {})
            return True
        self._known.pop(image, None)
        return False

    def _pull(self, image: str, registry_auth: str, hear: Callable[[], None]) -> None:
        """Pull on a thread; `hear` is called for each word of the registry."""
        headers = {"X-Registry-Auth": registry_auth} if registry_auth else None
        with self._engine.lasting() as client:
            try:
                response = request(
                    client,
                    "POST",
                    "/images/pull",
                    params={"reference": normalized_image(image)},
                    headers=headers,
                    timeout=(10, PULL_SECONDS),
                    stream=True,
                )
                # What is not read to its end keeps its socket until it is closed.
                with response:
                    _follow(image, response, hear)
            except (requests.RequestException, PodmanError, ValueError) as error:
                raise self._engine.away(error) from error
        self._known.pop(image, None)


def _follow(image: str, response: requests.Response, hear: Callable[[], None]) -> None:
    if response.status_code >= 400:
        raise EngineError(response.status_code, pull_failure(image, message_of(response)))
    # The answer is 200 even when the pull fails: the error is a line of the stream.
    for line in response.iter_lines():
        told = json.loads(line) if line else {}
        if told.get("error"):
            raise EngineError(500, pull_failure(image, str(told["error"])))
        if not str(told.get("stream") or "").startswith(OWN_WORDS):
            hear()
