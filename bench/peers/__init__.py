"""The systems of bench/side_by_side.py, each a module that runs in its own process."""
