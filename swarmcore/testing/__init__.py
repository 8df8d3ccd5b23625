"""For plugin authors and for this project's own tests: contract suites, fakes, clusters, real engines.

Never imported by the core. For an author: `scheduling.py` (views of a cluster, suites for filters and strategies),
`executor_contract/` (the suite for executors, which `python -m swarmcore.testing executor` runs) and `clock.py`. For
the project: `store.py` and `fleet.py` (a cluster in memory), `cluster.py` and `engines.py` (real processes and real
engines), `demo.py`.
"""
