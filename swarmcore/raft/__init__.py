"""Agreement: the Raft state machine, without clock, socket or disk.

`Raft.step(event)` takes one thing that happened and returns the effects to carry out. Called by
`swarmcore.replication`, which owns the disk, the network and the ticks; the machine never waits, never reads a clock
and draws chance from a source it is given. What is inside an entry is opaque to it, but for membership entries.

Effects carry their order. Each `Persist` has a number; whatever must not happen before it is durable names that number
in `after`. The driver reports `Persisted(number)` and does everything else at once, so heartbeats go out while a slow
disk writes, and a vote never leaves before it is on disk.

Start reading in `machine.py` (terms, and who handles what), then `follower.py`, `candidate.py` and `leader.py`; the
values are in `types.py`, `messages.py`, `events.py` and `effects.py`. Sources: the Raft paper (Ongaro, Ousterhout
2014), the thesis for membership, transfer, pre-vote and reads, and etcd's raft for flow control.
"""
