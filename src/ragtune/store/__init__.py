"""The run directory: what lies there, and whether it still holds."""
