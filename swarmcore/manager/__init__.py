"""A manager: what runs while it leads, what runs always, and the services it offers.

Built by `swarmcore.node`. Never decides anything about tasks by itself. Start reading in `manager.py`.
"""
