"""What a request must keep to: pure functions that raise InvalidArgumentError with the name of the field.

Called by the control service before a transaction, and inside it for what depends on other objects. They never read a
clock, a file or the network, and they never change what they are given. `bounds.py` comes first for every request: it
limits size and text before any other rule looks at a value.
"""
