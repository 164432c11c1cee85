"""Questions and answers that a model writes, for those who have documents only. Begin with generate.py."""
