"""Finding the passages that a question is about. Begin with retriever.py."""
