"""The load test inside of a cluster: the image, and the Job that runs it."""
