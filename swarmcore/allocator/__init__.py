"""Gives services their published ports, and lets tasks go on to the scheduler once all they need is given.

Called by nobody: a leader component that follows the store. It never chooses a node, and it remembers nothing that is
not in the store. Networks need a provider, and there is none yet: what asks for one waits, and says so. Start reading
in `allocator.py`; `ports.py` is the pure part. A task of a service that needs nothing never comes here: it is PENDING
from the start, by the same rule (`swarmcore.store.allocation`).
"""
