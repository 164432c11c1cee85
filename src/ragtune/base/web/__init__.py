"""Asking the Hub and others: bounded in size and time, or not at all. Begin with hub.py."""
