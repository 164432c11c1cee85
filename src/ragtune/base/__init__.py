"""What every room may use: errors, text, files, the lock, the console, secrets, the network."""
