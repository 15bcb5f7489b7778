"""`sluice`: says beforehand what an autoscaling number will do to a queue and its workers."""
