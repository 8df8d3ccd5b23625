"""Images: as new as the registry has them, and of what is here already where the registry does not answer."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from swarmcore.plugin.executor import ExecutorError, TaskRejectedError, TemporaryError
from swarmcore.plugin.threads import Threads

log = logging.getLogger("swarmcore.images")

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


class ImagePulls(ABC):
    """The images of one engine. Callers who want the same one at once share one pull, and survive each other."""

    def __init__(self, name: str) -> None:
        """`name` is the engine's, for its threads."""
        self._threads = Threads(PULLS_AT_ONCE, f"{name}-pull")
        self._pulls: dict[_Key, _Pull] = {}
        self._settled: dict[_Key, float] = {}
        """Until when the registry need not be asked again."""
        self._here: dict[_Key, float] = {}
        """Until when the engine need not be asked again whether it has the image."""
        self._asking: dict[str, asyncio.Task[bool]] = {}
        """Questions to the engine that are not answered yet, by image."""

    async def fetch(self, image: str, registry_auth: str) -> None:
        """Have the image here. One that is here serves where the registry fails, and at once if it names its digest.

        Raises TaskRejectedError in the registry's words, and TemporaryError where the engine is away.
        """
        key = (image, registry_auth)
        now = asyncio.get_running_loop().time()
        if now < self._here.get(key, 0.0):
            return
        is_here = await self._ask_whether_here(image)
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
        except TemporaryError:
            raise
        except ExecutorError as error:
            if not is_here:
                raise TaskRejectedError(str(error)) from error

    def doubt(self, image: str, registry_auth: str) -> bool:
        """The engine says that an image is missing: look for it again; whether it had only been believed to be here."""
        return self._here.pop((image, registry_auth), None) is not None

    @abstractmethod
    async def _is_here(self, image: str) -> bool:
        """Whether the engine has it. Raises TaskRejectedError, and TemporaryError without an answer."""

    @abstractmethod
    def _pull(self, image: str, registry_auth: str, hear: Callable[[], None]) -> None:
        """Pull on a thread; call `hear` for each word of the registry. Raises an ExecutorError in its words."""

    async def _ask_whether_here(self, image: str) -> bool:
        """As `_is_here`; those who ask at once share one question, and survive each other."""
        asking = self._asking.get(image)
        if asking is None:
            asking = self._asking[image] = asyncio.create_task(self._is_here(image), name=f"is {image} here")
            asking.add_done_callback(lambda task: self._answered(image, task))
        return await asyncio.shield(asking)

    def _answered(self, image: str, task: asyncio.Task[bool]) -> None:
        self._asking.pop(image, None)
        if not task.cancelled():
            task.exception()  # It was for those who waited; nobody may have.

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

    def close(self) -> None:
        """Give up the questions and pulls that are under way."""
        for asking in list(self._asking.values()):
            asking.cancel()
        for pull in list(self._pulls.values()):
            if pull.task is not None:
                pull.task.cancel()
        self._threads.close()
