"""Reading documents of every common kind as text whose every character has a place. Begin with read.py."""
