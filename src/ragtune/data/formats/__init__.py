"""Public formats of question-answering data, as records in the schema of Example. Begin with format.py."""
