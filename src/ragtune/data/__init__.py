"""Questions with passages: read, selected, prompted, encoded. Begin with example.py, prepare.py, encode.py."""
