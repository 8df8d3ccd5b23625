"""Checks of what an executor says of its node."""

from __future__ import annotations

from swarmcore.testing.executor_contract.case import case_of
from swarmcore.testing.executor_contract.marks import in_a_loop
from swarmcore.testing.executor_contract.subject import Subject


class DescriptionContract:
    """A scheduler reads it, and each change of it begins a new session."""

    pytestmark = in_a_loop

    async def test_the_node_is_described(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            said = await case.soon(case.executor.describe(), "describe")

            missing = [
                name
                for name, value in (
                    ("hostname", said.hostname),
                    ("platform.os", said.platform.os),
                    ("platform.architecture", said.platform.architecture),
                    ("resources.nano_cpus", said.resources.nano_cpus),
                    ("resources.memory_bytes", said.resources.memory_bytes),
                )
                if not value
            ]
            assert not missing, f"the description lacks {', '.join(missing)}"

    async def test_the_description_stays_the_same_while_nothing_changes(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            first = await case.soon(case.executor.describe(), "describe")
            second = await case.soon(case.executor.describe(), "describe")

            assert first == second, f"described as\n{first}and then as\n{second}"

    async def test_the_engine_is_there_for_its_factory(self, subject: Subject) -> None:
        async with case_of(subject) as case:
            is_there = await case.soon(subject.factory.available(subject.host), "available", seconds=2.0)

            assert is_there, "the factory says that the engine is not available, and made an executor"
