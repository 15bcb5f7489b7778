"""The load test inside of a cluster: its image, and the Job that runs it."""
