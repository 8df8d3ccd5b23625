"""The console scripts: what makes ctrl-C end a command at any moment of its life.

Python turns ctrl-C into an exception wherever the main thread is. While modules load nobody catches it, and in a
finalizer it is dropped, with a traceback each time. So before and after a command the kernel's own way holds, which is
to end without a word, and an exception that was dropped comes again.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

AGAIN_SECONDS = 0.01


def swarmctl() -> None:
    """Run `swarmctl`."""
    _run(_load_swarmctl)


def swarmd() -> None:
    """Run `swarmd`."""
    _run(_load_swarmd)


def _load_swarmctl() -> Callable[[], None]:
    from swarmcore.cli.swarmctl import main

    return main


def _load_swarmd() -> Callable[[], None]:
    from swarmcore.cli.swarmd import main

    return main


def _run(load: Callable[[], Callable[[], None]]) -> None:
    # Who starts a command in the background may have it ignore ctrl-C.
    is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = load()
    if not is_heeded:
        return main()
    redeliver_dropped_interrupts()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def redeliver_dropped_interrupts() -> None:
    """Have a KeyboardInterrupt that Python drops, as it does in finalizers and callbacks of gRPC, come again."""
    say = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            say(dropped)

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sys.unraisablehook = hook
