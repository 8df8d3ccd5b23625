"""Which node runs which task.

The manager runs `scheduler.Scheduler` while it leads. Nothing else calls this package, and it writes nothing but the
node, the generic resources and the status of tasks that wait for a node. It never decides that a task is needed or has
to go. Filters and strategies come from plugins and run in the scheduler's own thread, on a view of its own.

Start reading in `plan.py`: values in, decisions out. `view.py` and `backlog.py` are what it reads, `planner.py` keeps
both up to date, `scheduler.py` drives it from the store's changes and commits what comes out.
"""
