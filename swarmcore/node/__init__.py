"""One node: its identity, its state directory, its executors, its agent, and the manager beside it where it is one.

Called by `swarmd`. Decides nothing about the cluster. Start reading in `node.py`; a manager's servers are in
`listeners.py`, the front of the one port that all callers come through in `front.py`.
"""
