"""A grid of recipes, trained with several seeds and compared on data held apart. Begin with sweep.py."""
