"""Asking a tuned reader: from Python, the terminal, a page, a server. Begin with reader.py."""
