"""`sluice` predicts what an autoscaling number does to a queue and its workers."""
