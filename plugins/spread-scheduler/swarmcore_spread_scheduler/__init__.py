"""Spreads tasks over nodes, with placement preferences; binpack beside it."""
