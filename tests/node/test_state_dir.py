"""The folder of a node's state."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmcore.errors import ConfigurationError
from swarmcore.node.state_dir import StateDir


def test_it_is_made_private_and_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    first = StateDir(path)

    assert path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ConfigurationError, match="another swarmd uses the state directory"):
        StateDir(path)
    first.close()
    StateDir(path).close()


def test_a_path_that_can_not_be_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"can't write the state directory .*: Not a directory; name another"):
        StateDir(tmp_path / "file" / "state")
