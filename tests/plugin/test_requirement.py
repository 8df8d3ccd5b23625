"""Version clauses of a plugin's requirement on the core."""

from __future__ import annotations

import pytest

from swarmcore.plugin.requirement import is_satisfied, requirements_on


@pytest.mark.parametrize(
    ("version", "clauses", "satisfied"),
    [
        ("0.1.0", ">=0.1", True),
        ("0.1.0", ">=0.1,<0.2", True),
        ("0.2.0", ">=0.1,<0.2", False),
        ("1.4.2", "~=1.4", True),
        ("2.0", "~=1.4", False),
        ("1.4.2", "~=1.4.1", True),
        ("1.5.0", "~=1.4.1", False),
        ("1.0", "==1.0.0", True),
        ("1.2.9", "==1.2.*", True),
        ("1.3", "!=1.2.*", True),
        ("1.0rc1", "<1.0", True),
        ("1.0", "nonsense", False),
    ],
)
def test_a_clause_is_read_as_pip_reads_it(version: str, clauses: str, satisfied: bool) -> None:
    assert is_satisfied(version, clauses) is satisfied


def test_only_unconditional_requirements_on_the_package_count() -> None:
    requires = ["swarmcore>=0.1", "Swarm_Core>=9", "swarmcore>=5; extra == 'x'", "grpcio>=1.80"]

    assert requirements_on("swarmcore", requires) == [">=0.1"]
