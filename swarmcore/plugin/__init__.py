"""What a plugin author imports: the hook markers and the protocols behind the hooks.

Called by plugins and by the core's loader. Never imports anything above `swarmcore.api`. Start reading in
`hookspecs.py`, then the file of the kind you write: `scheduling.py`, `executor.py`, `acceptance.py`, `restart.py`.
"""

from __future__ import annotations

import pluggy

PROJECT = "swarmcore"
API_VERSION = (1, 0)
ENTRY_POINT_GROUP = "swarmcore.v1"

hookimpl = pluggy.HookimplMarker(PROJECT)
hookspec = pluggy.HookspecMarker(PROJECT)

__all__ = ["API_VERSION", "ENTRY_POINT_GROUP", "PROJECT", "hookimpl", "hookspec"]
