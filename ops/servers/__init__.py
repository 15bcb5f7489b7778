"""The system on one machine: RabbitMQ, Redis and NGINX, and the processes of apps/, as children of one supervisor."""
