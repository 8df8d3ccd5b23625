"""Images: as new as the registry has them, and of what is here already where the registry does not answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import requests

from swarmcore.plugin.executor import TaskRejectedError, TemporaryError
from swarmcore.plugin.threads import Threads
from swarmcore_docker_executor.engine import Engine, EngineError, message_of, reason_of

log = logging.getLogger("swarmcore.docker")

PULLS_AT_ONCE: Final = 3
SILENCE_SECONDS: Final = 5.0
"""A registry that says nothing for so long is not waited for where the image is here."""
PULLED_SECONDS: Final = 10.0
"""Tasks that start together need not ask the registry one by one."""
HERE_SECONDS: Final = 2.0
"""Tasks that start together need not ask the engine one by one either."""
FAILED_SECONDS: Final = 60.0
"""So long a registry that failed is not asked again for an image that is here."""

_Key = tuple[str, str]
"""Image and credentials: whoever has none must not profit from another's."""


@dataclass(slots=True, eq=False)
class _Pull:
    """One pull, and those who wait for it."""

    began: float
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the registry's first word, or at the end."""
    is_told: bool = False
    """Whether its silence was logged."""
    task: asyncio.Task[None] | None = None


class Images:
    """The images of one engine. Callers who want the same one at once share one pull, and survive each other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = Threads(PULLS_AT_ONCE, "docker-pull")
        self._pulls: dict[_Key, _Pull] = {}
        self._settled: dict[_Key, float] = {}
        """Until when the registry need not be asked again."""
        self._here: dict[_Key, float] = {}
        """Until when the engine need not be asked again whether it has the image."""

    async def fetch(self, image: str, registry_auth: str) -> None:
        """Have the image here. One that is here serves where the registry fails, and at once if it names its digest.

        Raises TaskRejectedError in the registry's words, and TemporaryError where the engine is away.
        """
        key = (image, registry_auth)
        now = asyncio.get_running_loop().time()
        if now < self._here.get(key, 0.0):
            return
        is_here = await self._is_here(image)
        if is_here and ("@sha256:" in image or now < self._settled.get(key, 0.0)):
            self._here[key] = now + HERE_SECONDS
            return
        if not is_here and asyncio.get_running_loop().time() < self._here.get(key, 0.0):
            return  # Another task's pull ended while the engine was asked.
        pull = self._pulls.get(key) or self._begin(key, now)
        assert pull.task is not None
        if is_here:
            try:
                async with asyncio.timeout_at(pull.began + SILENCE_SECONDS):
                    await pull.heard.wait()
            except TimeoutError:
                if not pull.is_told:
                    pull.is_told = True
                    log.info("the registry of image %r does not answer: tasks start with the one that is here", image)
                return
        try:
            await asyncio.shield(pull.task)
        except EngineError as error:
            if not is_here:
                raise TaskRejectedError(str(error)) from error

    def doubt(self, image: str, registry_auth: str) -> bool:
        """The engine says that an image is missing: look for it again; whether it had only been believed to be here."""
        return self._here.pop((image, registry_auth), None) is not None

    async def _is_here(self, image: str) -> bool:
        try:
            await self._engine.call("GET", f"/images/{image}/json")
        except EngineError as error:
            if error.code == 404:
                return False
            raise TaskRejectedError(str(error)) from error
        return True

    def _begin(self, key: _Key, now: float) -> _Pull:
        pull = self._pulls[key] = _Pull(now)
        loop = asyncio.get_running_loop()
        image, registry_auth = key

        def hear() -> None:
            if not pull.heard.is_set():
                loop.call_soon_threadsafe(pull.heard.set)

        work = self._threads.run(lambda: self._pull(image, registry_auth, hear))
        pull.task = asyncio.create_task(work, name=f"pull {image}")
        pull.task.add_done_callback(lambda task: self._ended(key, pull, task))
        return pull

    def _ended(self, key: _Key, pull: _Pull, task: asyncio.Task[None]) -> None:
        self._pulls.pop(key, None)
        pull.heard.set()
        if task.cancelled():
            return
        error = task.exception()  # every caller may have been cancelled; the error was theirs
        if isinstance(error, TemporaryError):
            return
        now = asyncio.get_running_loop().time()
        self._settled = {each: until for each, until in self._settled.items() if until > now}
        self._here = {each: until for each, until in self._here.items() if until > now}
        self._settled[key] = now + (PULLED_SECONDS if error is None else FAILED_SECONDS)
        if error is None:
            self._here[key] = now + HERE_SECONDS

    def _pull(self, image: str, registry_auth: str, hear: Callable[[], None]) -> None:
        """Pull on a thread; `hear` is called for each word of the registry."""
        client = self._engine.client(timeout=None)
        headers = {"X-Registry-Auth": registry_auth} if registry_auth else {}
        try:
            response = client.post(
                f"{client.base_url}/v{self._engine.api_version}/images/create",
                params=pull_parameters(image),
                headers=headers,
                stream=True,
                timeout=(10, 300),
            )
            if response.status_code >= 400:
                raise EngineError(response.status_code, message_of(response))
            # The answer is 200 even when the pull fails: the error is a line of the stream.
            for line in response.iter_lines():
                told = json.loads(line) if line else {}
                if "error" in told:
                    raise EngineError(500, str(told["error"]))
                hear()
        except (requests.RequestException, ValueError) as error:
            raise TemporaryError(
                f"no answer from the Docker engine at {self._engine.address}: {reason_of(error)}"
            ) from error
        finally:
            client.close()

    def close(self) -> None:
        """Give up the pulls that are under way."""
        for pull in list(self._pulls.values()):
            if pull.task is not None:
                pull.task.cancel()
        self._threads.close()


def pull_parameters(image: str) -> dict[str, str]:
    """Split a reference for the engine, which would pull every tag of a bare name."""
    name, at, digest = image.partition("@")
    if at:
        return {"fromImage": name, "tag": digest}
    head, slash, last = name.rpartition("/")
    base, colon, tag = last.partition(":")
    return {"fromImage": f"{head}{slash}{base}", "tag": tag if colon else "latest"}
