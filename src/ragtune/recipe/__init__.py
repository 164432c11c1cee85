"""The recipe: its keys, its file, what is wrong with one."""
