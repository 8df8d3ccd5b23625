"""Runs tasks as plain processes."""
