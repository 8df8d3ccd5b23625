"""How an image is asked for, and what of the registry's answer counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from swarmcore_podman_executor.engine import Engine
from swarmcore_podman_executor.images import MAX_KNOWN, Images

from swarmcore.plugin import image_pulls
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore.testing.fake_docker import Answer, FakeDocker, fake_docker

FULL = "docker.io/library/redis"


class Registry:
    """An engine with some images, and a registry behind it."""

    def __init__(self, *local: str) -> None:
        self.local = local
        self.pulled: Answer = (200, {"error": "no such host"})
        self.answers = asyncio.Event()
        self.answers.set()

    async def answer(self, method: str, path: str) -> Answer:
        if "/images/pull" in path:
            await self.answers.wait()
            return self.pulled
        if any(path == f"/libpod/images/{image}/json" for image in self.local):
            return 200, {"Id": "i", "Healthcheck": {"Test": ["CMD", "true"]}}
        return 404, {"message": "no such image"}


@contextlib.asynccontextmanager
async def images_of(registry: Registry) -> AsyncIterator[tuple[Images, FakeDocker]]:
    async with fake_docker(registry.answer) as podman:
        engine = Engine(podman.address)
        images = Images(engine)
        try:
            yield images, podman
        finally:
            images.close()
            await engine.aclose()


async def test_a_bare_name_is_looked_for_and_pulled_as_docker_does() -> None:
    async with images_of(Registry()) as (images, podman):
        with pytest.raises(TaskRejectedError, match="no such host"):
            await images.get("redis", "")

    assert f"GET /libpod/images/{FULL}/json" in podman.asked
    assert "POST /libpod/images/pull?reference=docker.io%2Flibrary%2Fredis" in podman.asked


async def test_an_image_that_was_built_here_serves_under_its_short_name() -> None:
    async with images_of(Registry("mine")) as (images, _):
        found = await images.get("mine", "")

    assert found.reference == "mine"


async def test_what_is_here_serves_where_the_registry_fails_and_tells_its_health_check() -> None:
    async with images_of(Registry(FULL)) as (images, _):
        found = await images.get("redis", "")

    assert (found.reference, found.health) == (FULL, {"Test": ["CMD", "true"]})


async def test_the_engines_own_words_are_no_answer_of_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pulls, "SILENCE_SECONDS", 0.05)
    registry = Registry(FULL)
    registry.answers.clear()
    registry.pulled = (200, {"stream": f"Trying to pull {FULL}..."})
    async with images_of(registry) as (images, podman):
        found = await asyncio.wait_for(images.get("redis", ""), 5)
        await podman.wait_asked("/images/pull")
        registry.answers.set()

    assert found.reference == FULL


async def test_an_image_that_vanished_is_looked_for_again() -> None:
    registry = Registry(FULL)
    async with images_of(registry) as (images, podman):
        await images.get("redis", "")
        await images.get("redis", "")
        registry.local = ()
        images.doubt("redis", "")
        with pytest.raises(TaskRejectedError):
            await images.get("redis", "")

        assert sum("/json" in each for each in podman.asked) >= 3


async def test_no_more_than_so_many_images_are_remembered() -> None:
    registry = Registry(*(f"docker.io/library/i{number}" for number in range(MAX_KNOWN + 5)))
    async with images_of(registry) as (images, _):
        for number in range(MAX_KNOWN + 5):
            await images._is_here(f"i{number}")

        assert len(images._known) == MAX_KNOWN
