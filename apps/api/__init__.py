"""The HTTP service: accepts tasks, and returns their states and results."""
