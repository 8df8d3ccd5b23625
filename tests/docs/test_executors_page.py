"""docs/executors.md: its example can be used as it stands, and its numbers are those of the suite."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from swarmcore.testing.executor_contract import ExecutorContract, Subject
from swarmcore.testing.executor_contract.memory import ModelEngine, ModelFactory
from swarmcore.testing.executor_contract.program import Program
from swarmcore.testing.executor_contract.runner import checks_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "executors.md").read_text()


def test_the_example_is_a_whole_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin: Any = ModuleType("acme_executor")
    plugin.AcmeFactory, plugin.acme = lambda: ModelFactory(ModelEngine()), object()
    monkeypatch.setitem(sys.modules, "acme_executor", plugin)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}

    exec(compile("\n".join(blocks), "docs/executors.md", "exec"), names)  # noqa: S102 - our own page

    subject: Subject = names["AcmeSubject"](tmp_path)
    assert subject.host.state_dir == str(tmp_path)
    assert "sh" in subject.make_task(Program()).spec.container.command
    assert checks_of(names["TestAcme"]) == checks_of(ExecutorContract)


def test_the_numbers_are_those_of_the_suite() -> None:
    told = {int(number) for number in re.findall(r"(\d+) checks", PAGE)}

    assert told == {len(checks_of(ExecutorContract))}
