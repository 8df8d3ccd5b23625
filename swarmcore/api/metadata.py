"""What calls and answers say beside their messages, in gRPC's metadata: names of our own, that SwarmKit ignores."""

from __future__ import annotations

OUTCOME = "swarmcore-outcome"
"""What an answer that is an error means. Without it no manager gave the answer: the connection did."""
NOT_DONE = "not-done"
"""The manager did not lead, and did nothing: the same call may go to the next leader."""
REFUSED = "refused"
STALE = "swarmcore-stale"
"""No leader could be asked: the answer is what this manager knew last."""
TIME = "swarmcore-time"
"""With a heartbeat: the caller's clock, in seconds since the epoch."""
