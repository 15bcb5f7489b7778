"""The system on one machine: RabbitMQ, Redis, NGINX and the processes of apps/ as children of one supervisor."""
