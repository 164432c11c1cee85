"""The report, its figures in words, and what the terminal shows. Begin with html.py."""
