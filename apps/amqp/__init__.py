"""AMQP 0-9-1 for confirmed publishing of tasks with asyncio. pamqp encodes everything except task messages."""
