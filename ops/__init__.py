"""The commands behind the make targets: one toolkit for one machine and for a cluster.

A module for each verb (up, demo, run, rabbitmq_ui, images, release, secrets, sops, platform, deploy, flux, definitions)
and for what they share: command (running programs, errors for a person), credentials, files, cluster, tools, pins ...

servers/        RabbitMQ, Redis, NGINX and the processes of apps/ on one machine
requirements/   the virtual environment and the lock files
validate/       the rules of `make validate`
charts/         the real charts: their keys, and what our values do in them
contract/       what a change of the contract breaks
go/             the sums of every program that is built from Go modules
"""
