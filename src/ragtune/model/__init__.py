"""Models: finding, loading, packed attention, adapters, memory."""
