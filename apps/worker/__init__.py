"""The Celery worker: it runs tasks and keeps their records; and the dead-letter recorder beside it."""
