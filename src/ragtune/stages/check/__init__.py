"""Everything that can be found out before anything costs time."""
