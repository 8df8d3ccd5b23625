"""The control API: what operators and their tools ask of a manager, checked before anything is believed.

Called through gRPC by `swarmctl`, by SwarmKit's own tools and by other managers. It reads and writes the store and
never acts on tasks or nodes itself: it writes down what is wanted, and the orchestrators do the rest. It never returns
a secret's data, a key of the CA or an unlock key. Start reading in `control.py`; the rules that a request must keep
are pure functions in `validate/`.
"""
