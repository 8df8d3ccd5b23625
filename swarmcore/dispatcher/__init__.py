"""The manager's side of agent sessions: who is there, what each node shall run, and what the nodes report.

Called by the agents of all nodes over gRPC (through the interceptor that authorises them), run by the manager while it
leads. It writes node states and task statuses, and nothing else; it never decides where a task runs or whether it is
replaced. Start reading in `dispatcher.py`, then `term.py`; `assignments.py` and `leases.py` are the pure parts.
"""
