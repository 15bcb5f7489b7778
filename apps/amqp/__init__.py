"""AMQP 0-9-1 for one purpose: confirmed publishing of tasks from asyncio. pamqp encodes what is not a task."""
