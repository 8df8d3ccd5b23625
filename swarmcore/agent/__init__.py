"""The node's side: keeps a session with a manager and runs the tasks that it is assigned.

Called by `swarmcore.node`. Never knows an engine: what runs tasks is an Executor of a plugin. Start reading in
`agent.py`; `steps.py` is the task state machine, `task_manager.py` drives it, `worker.py` applies assignments and
`session.py` talks to the manager.
"""
