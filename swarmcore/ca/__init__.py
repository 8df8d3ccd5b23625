"""Trust: the root CA, join tokens, issuing and renewing certificates, a node's identity, and who may call what.

Called by `manager` and `node`; plugins decide about new nodes through `swarmcore.plugin.acceptance`. Never decides
what runs where, and never hands a private key to another node. Start reading in `root.py` (what a certificate
is), then `security.py` (what a node holds), `server.py` (how a manager issues), `authorize.py` (how a call is checked).
"""
