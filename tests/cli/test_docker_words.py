"""Users of Docker find their way: what they type is answered with what it is called here."""

from __future__ import annotations

import pytest

from swarmcore.cli import docker_words
from swarmcore.testing.control_socket import Ctl


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("ps", "no such command 'ps': `swarmctl task ls` lists tasks (see `swarmctl --help`)"),
        ("service scale web=3", "no such command 'scale': `swarmctl service update SERVICE --replicas N` does it"),
        ("service create --name web nginx", "extra argument (nginx): the image is given with --image"),
        ("service create -p 80:80", "No such option '-p': ports are given with --ports NAME:TARGET:PUBLISHED"),
        ("service update web --env-add A=1", "'--env-add': use --env: a repeatable flag replaces its whole list"),
        ("node update w1 --availability drain", "`swarmctl node drain`, `pause` and `activate` do it"),
        ("config create c file", "the file is given with --file; without it, standard input is read"),
    ],
)
def test_what_docker_calls_otherwise_is_translated(bare_ctl: Ctl, typed: str, answer: str) -> None:
    shown = bare_ctl(*typed.split())

    assert shown.code == 2
    assert answer in shown.err
    assert len(shown.err.splitlines()) == 1


def test_what_nobody_calls_anything_gets_the_nearest_command_that_exists(bare_ctl: Ctl) -> None:
    assert "did you mean 'service'?" in bare_ctl("servce").err
    assert "did you mean 'ls'?" in bare_ctl("node", "lst").err
    assert "did you mean 'remove'?" in bare_ctl("node", "remov").err


def test_every_command_that_has_such_words_exists(bare_ctl: Ctl) -> None:
    for path in docker_words._WORDS:
        assert bare_ctl(*path.split()[1:], "--help").code == 0, path
