"""Images that are here, images that are not, and registries that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator

import pytest
from swarmcore_docker_executor.engine import Engine
from swarmcore_docker_executor.images import Images, pull_parameters

from swarmcore.plugin import image_pulls
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore.testing.fake_docker import Answer, FakeDocker, fake_docker

DIGEST = "@sha256:" + "a" * 64


class Registry:
    """An engine with some images, and a registry behind it."""

    def __init__(self, *local: str) -> None:
        self.local = local
        self.pulled: Answer = (200, {"error": "no such host"})
        self.answers = asyncio.Event()
        self.answers.set()

    async def answer(self, method: str, path: str) -> Answer:
        if path.startswith("/images/create"):
            await self.answers.wait()
            return self.pulled
        if any(path == f"/images/{image}/json" for image in self.local):
            return 200, {"Id": "i"}
        return 404, {"message": "no such thing"}


@contextlib.asynccontextmanager
async def images_of(registry: Registry) -> AsyncIterator[tuple[Images, Engine, FakeDocker]]:
    async with fake_docker(registry.answer) as docker:
        engine = Engine(docker.address, "1.41")
        images = Images(engine)
        try:
            yield images, engine, docker
        finally:
            images.close()
            await engine.aclose()


def pulls(docker: FakeDocker) -> int:
    return sum(asked.startswith("POST /images/create") for asked in docker.asked)


async def test_a_local_image_serves_where_the_registry_fails_and_it_is_asked_once_in_a_while() -> None:
    async with images_of(Registry("redis:3")) as (images, _, docker):
        for _ in range(3):
            await images.fetch("redis:3", "")

        assert pulls(docker) == 1


async def test_a_local_image_does_not_wait_for_a_registry_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pulls, "SILENCE_SECONDS", 0.05)
    registry = Registry("redis:3")
    registry.answers.clear()
    async with images_of(registry) as (images, _, docker):
        async with asyncio.timeout(5):
            await asyncio.gather(*(images.fetch("redis:3", "") for _ in range(20)))

        assert pulls(docker) == 1
        registry.answers.set()


async def test_an_image_that_is_not_here_is_refused_in_the_registrys_words() -> None:
    async with images_of(Registry()) as (images, _, docker):
        for _ in range(2):
            with pytest.raises(TaskRejectedError, match="no such host"):
                await images.fetch("redis:3", "")

        assert pulls(docker) == 2


async def test_a_pull_that_fails_in_its_middle_leaves_no_socket() -> None:
    registry = Registry()
    registry.pulled = (200, b'{"error": "no such host"}\n' + b" " * 100_000)
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        async with images_of(registry) as (images, _, _):
            with pytest.raises(TaskRejectedError, match="no such host") as refused:
                await images.fetch("redis:3", "")
        after = len(os.listdir("/proc/self/fd"))
    finally:
        gc.enable()

    assert after == before, refused


async def test_tasks_that_start_together_ask_the_engine_once() -> None:
    async with images_of(Registry("redis:3")) as (images, _, docker):
        await images.fetch("redis:3", "")
        docker.asked.clear()

        await asyncio.gather(*(images.fetch("redis:3", "") for _ in range(20)))

        assert docker.asked == ["GET /images/redis:3/json"]


async def test_who_gives_up_takes_the_question_from_nobody_else() -> None:
    async with images_of(Registry("redis:3")) as (images, _, docker):
        first, second = (asyncio.ensure_future(images.fetch("redis:3", "")) for _ in range(2))
        await docker.wait_asked("/images/redis:3/json")
        first.cancel()

        async with asyncio.timeout(5):
            await second


async def test_a_digest_that_is_here_needs_no_registry() -> None:
    async with images_of(Registry(f"redis{DIGEST}")) as (images, _, docker):
        await images.fetch(f"redis{DIGEST}", "")

        assert pulls(docker) == 0


async def test_those_who_want_the_same_share_one_pull_and_survive_each_other() -> None:
    registry = Registry()
    registry.pulled = (200, {"status": "done"})
    registry.answers.clear()
    async with images_of(registry) as (images, _, docker):
        first, second = (asyncio.ensure_future(images.fetch("redis:3", "")) for _ in range(2))
        await docker.wait_asked("/images/create")
        first.cancel()
        await asyncio.wait([first])
        registry.answers.set()

        await second

        assert pulls(docker) == 1


async def test_a_pull_that_ends_while_the_engine_is_asked_serves_who_asked() -> None:
    registry = Registry()
    registry.pulled = (200, {"status": "done"})
    registry.answers.clear()
    late = asyncio.Event()
    async with images_of(registry) as (images, _, docker):
        first = asyncio.ensure_future(images.fetch("redis:3", ""))
        await docker.wait_asked("/images/create")

        async def slow(method: str, path: str) -> Answer:
            if path == "/images/redis:3/json":
                await late.wait()
            return await registry.answer(method, path)

        docker.handler = slow
        second = asyncio.ensure_future(images.fetch("redis:3", ""))
        await docker.wait_asked("/images/redis:3/json", times=2)
        registry.answers.set()
        await first
        late.set()
        await second

        assert pulls(docker) == 1


async def test_pulls_that_hang_keep_no_other_call_from_its_turn() -> None:
    registry = Registry("redis:3")
    registry.answers.clear()
    async with images_of(registry) as (images, engine, docker):
        hanging = [asyncio.ensure_future(images.fetch(f"other:{number}", "")) for number in range(20)]
        await docker.wait_asked("/images/create")

        async with asyncio.timeout(5):
            assert await engine.call("GET", "/images/redis:3/json") == {"Id": "i"}

        for fetch in hanging:
            fetch.cancel()
        await asyncio.wait(hanging)
        registry.answers.set()


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [
        ("redis", "redis", "latest"),
        ("redis:3.0.5", "redis", "3.0.5"),
        ("host:5000/a/redis", "host:5000/a/redis", "latest"),
        ("host:5000/redis:3", "host:5000/redis", "3"),
        (f"redis{DIGEST}", "redis", DIGEST[1:]),
    ],
)
def test_a_reference_is_split_for_the_engine(image: str, name: str, tag: str) -> None:
    assert pull_parameters(image) == {"fromImage": name, "tag": tag}
