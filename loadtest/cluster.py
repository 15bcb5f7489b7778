"""The cluster that kubectl points to, behind its ingress: what is loaded with CLUSTER=1."""


class Cluster:
    """Replicas from the API server, queues from RabbitMQ, counters from the API's pods."""
