"""Questions with passages: reading, selecting, prompting, encoding."""
