"""Several processes for one run: who they are, how they begin and end, what they tell each other."""
