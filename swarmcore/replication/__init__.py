"""Raft on a real node: the log and the snapshots on disk, encrypted, and the driver that carries the machine's effects out.

Called by `swarmcore.node`, which opens a `Replica` and runs it. Decides nothing about agreement (that is
`swarmcore.raft`) and nothing about what is in an entry (that is `swarmcore.store`). Start reading in `replica.py`; the
files are in `log_file.py`, `snapshot_file.py` and `keys.py`, and the frame that both kinds of file are made of is in
`frames.py`.
"""
