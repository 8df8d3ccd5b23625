"""Keeps tasks on nodes that satisfy their constraints."""
