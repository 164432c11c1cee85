"""From predictions to figures, as pure functions. Begin with metrics.py and score.py."""
