"""Resources, platform, host ports, engine plugins and replicas per node."""
