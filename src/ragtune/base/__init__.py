"""What every room may use: errors, text, files, the lock, secrets; the screen, the web."""
