"""Log subscriptions: what tasks print, from the nodes that run them to whoever asked (SwarmKit: 8.12).

Runs while this manager leads. Called by agents (LogBroker) and by operators (Logs). Stores nothing: a line waits here,
in a bounded queue, until its reader takes it, and a reader that does not take it holds up its own nodes only. Start
reading in `broker.py`; `selection.py` says which nodes are asked, `subscription.py` is one reader.
"""
