"""Decides which nodes may join: token, auto, manual, psk."""
