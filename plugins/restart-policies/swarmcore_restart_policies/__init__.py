"""Decides whether a task that ended gets a successor."""
