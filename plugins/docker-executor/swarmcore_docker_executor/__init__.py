"""Runs tasks as containers on Docker Engine."""
