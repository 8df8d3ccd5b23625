"""Runs tasks as containers on Podman."""
