"""Measurements. `python -m bench.race` compares this manager with Docker's own; nothing here is part of the product.

Start reading in `race.py`; `workers.py` is the fleet that both managers serve, `managers.py` starts them.
"""
