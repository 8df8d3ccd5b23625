"""Commands beside tasks, and what tasks use: brings operators together with the nodes that their tasks run on.

Runs while this manager leads. Called by operators through a control socket (TaskAccess) and by agents
(TaskAccessBroker), who open every stream themselves; nobody can make a node do anything but through here. Each command
is written to the audit log before the node hears of it. Start reading in `broker.py`; `jobs.py` is one request.
"""
