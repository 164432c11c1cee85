"""Answering questions and scoring the answers."""
