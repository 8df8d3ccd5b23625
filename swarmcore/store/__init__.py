"""The replicated tables: what the cluster is, in memory, on every manager.

Written through `Store.update` and `Store.batch`, applied by `swarmcore.replication`, read by everything above. Never
touches a disk, a socket or a clock of its own. Start reading in `store.py`.
"""
