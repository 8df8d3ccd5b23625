"""A whole manager group in one thread without real time: seed in, same run out.

    python -m swarmcore.testing.simulation --seeds 0:1000
    python -m swarmcore.testing.simulation --trace 70

What runs is the real thing: the Raft machine, the replica that drives it, its write queue and applier, the log and
snapshot files down to the calls of `os`, the store and its group commit. Simulated are the disk (`files.py`), the
disk's thread and the clock (`process.py`), the network and what receives from it (`network.py`, `member.py`), and the
loop's time (`loop.py`). `run.py` puts them in place; `group.py` is one run, disturbed by `faults.py` and used by
`clients.py`.

Checked are, at each step, the properties of the paper and the bytes of the state (`invariants.py`); at the end, that
one order explains what the clients saw (`history.py`), that all members are equal, and that the group serves again.
`mutants.py` holds mistakes that it must find.
"""
