"""From predictions to figures. Imports no torch."""
