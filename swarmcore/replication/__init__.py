"""Raft on a real node: log and snapshots on disk, encrypted, and the driver that carries out what the machine says.

Called by `swarmcore.node`, which opens a `Replica` and runs it. Decides nothing about agreement (that is
`swarmcore.raft`) and nothing about what is in an entry (that is `swarmcore.store`). Start reading in `replica.py`; the
files are in `log_file.py`, `snapshot_file.py` and `keys.py`, and the frame that both kinds of file are made of is in
`frames.py`.
"""
