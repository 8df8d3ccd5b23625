"""Subjects for this project's own executors: `container_engine.py` for those with Docker's API, `processes.py`."""
