"""Object ids as SwarmKit makes them: 25 characters of base 36."""

from __future__ import annotations

import secrets
from collections.abc import Callable

ID_LENGTH = 25
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TWO_DIGITS = [high + low for high in _DIGITS for low in _DIGITS]

IdSource = Callable[[], str]


def base36(number: int, width: int) -> str:
    """Write `number` in base 36, padded with zeros to `width` digits."""
    digits = []
    while number:
        number, two = divmod(number, 36**2)
        digits.append(_TWO_DIGITS[two])
    digits.reverse()
    return "".join(digits).lstrip("0").rjust(width, "0")


def new_id() -> str:
    """A random object id. 17 random bytes hold more than the 25 digits kept (SwarmKit: 2.1)."""
    number = int.from_bytes(secrets.token_bytes(17), "big") | 1 << 135
    return base36(number, 0)[1 : 1 + ID_LENGTH]
