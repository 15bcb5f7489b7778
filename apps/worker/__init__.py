"""The Celery worker, which runs tasks and writes their records, and the dead-letter recorder."""
