"""From questions to predictions, with a model of this machine or with a server. Begin with engine.py."""
