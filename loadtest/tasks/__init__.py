"""The tasks that are posted by the load test: a family that only loaded systems have, as `apps/tasks/load`."""
