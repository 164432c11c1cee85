"""Merging and publishing."""
