"""The family of tasks that the load test posts. Only systems under load have it, as `apps/tasks/load`."""
