"""What a manager's answer says about itself, in gRPC's trailing metadata: names of our own, that SwarmKit ignores."""

from __future__ import annotations

OUTCOME = "swarmcore-outcome"
"""What an answer that is an error means. Without it no manager gave the answer: the connection did."""
NOT_DONE = "not-done"
"""The manager did not lead, and did nothing: the same call may go to the next leader."""
REFUSED = "refused"
STALE = "swarmcore-stale"
"""No leader could be asked: the answer is what this manager knew last."""
