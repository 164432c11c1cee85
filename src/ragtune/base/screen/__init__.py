"""What the user sees: the one door to the terminal, signs of life, notebooks. Begin with console.py."""
