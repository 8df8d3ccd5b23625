"""Executors that are wrong about a task's health."""

from __future__ import annotations

import asyncio

from swarmcore.plugin.executor import (
    ExitError,
    TemporaryError,
)
from swarmcore.testing.executor_contract.memory import (
    Box,
    ModelController,
)
from swarmcore.testing.executor_contract.mutants.corpus import FOR_EVER, controller
from swarmcore.testing.executor_contract.program import NO_HEALTH_TEST


@controller("test_start_returns_when_the_task_is_healthy_and_not_before")
class Impatient(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        try:
            async with asyncio.timeout(0.6):
                await super().wait_healthy(box)
        except TimeoutError:
            return


@controller("test_a_task_that_does_not_become_healthy_fails_in_start_and_is_stopped")
class LeavesTheSick(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        self.is_starting = True
        try:
            await super().wait_healthy(box)
        finally:
            self.is_starting = False

    is_starting: bool = False

    async def stop_unhealthy(self, box: Box) -> None:
        if self.is_starting:
            raise ExitError(1, "unhealthy container")
        await super().stop_unhealthy(box)


@controller("test_a_task_that_turns_unhealthy_fails_in_wait_and_is_stopped")
class OnceHealthy(ModelController):
    def is_unhealthy(self, box: Box) -> bool:
        return False


@controller("test_a_task_that_ends_before_it_is_healthy_does_not_hang_start")
class HealthOnly(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        while not box.is_healthy:
            if box.is_unhealthy and box.is_running:
                await self.stop_unhealthy(box)
            await self.wait_news()


@controller("test_closing_the_executor_ends_a_start_that_waits_for_health")
class StartsRegardless(ModelController):
    async def wait_healthy(self, box: Box) -> None:
        try:
            await super().wait_healthy(box)
        except TemporaryError:
            await asyncio.sleep(FOR_EVER)


@controller("test_without_a_check_nobody_asks_for_health")
class ChecksEverybody(ModelController):
    async def wait(self) -> None:
        if self.box is not None and self.box.program.health is None and self.box.is_sick:
            await self.stop_unhealthy(self.box)
        await super().wait()


@controller("test_a_check_that_is_switched_off_is_none")
class NoneIsACheck(ModelController):
    def waits_for_health(self, box: Box) -> bool:
        health = box.program.health
        return super().waits_for_health(box) or (health is not None and health.test == NO_HEALTH_TEST)
