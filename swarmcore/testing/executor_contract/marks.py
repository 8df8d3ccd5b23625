"""How pytest runs the checks: as coroutines, also where `asyncio_mode` is `strict`. Without pytest: nothing."""

from __future__ import annotations

from typing import Any

in_a_loop: list[Any]
try:
    import pytest
except ImportError:
    in_a_loop = []
else:
    in_a_loop = [pytest.mark.asyncio]
