"""The two commands: `swarmd` runs a node, `swarmctl` talks to a manager's control socket.

Called by people and their scripts. Never holds state of its own, and never reaches into a running node: `swarmctl`
knows nothing but the control API. Every command group of `swarmctl` is a file, imported when one of its commands runs.
Start reading in `swarmctl.py`.
"""
