"""The commands behind the make targets: one toolkit for one machine and for a cluster.

Each command is a module (up, demo, run, rabbitmq_ui, images, release, secrets, sops, platform, deploy, flux,
definitions). Shared modules: command (running programs, error messages), credentials, files, cluster, tools, pins ...

servers/        RabbitMQ, Redis, NGINX and the processes of apps/ on one machine
requirements/   the virtual environment and the lock files
validate/       the rules of `make validate`
charts/         the real charts: their value keys, and the effects of our values
contract/       detection of breaking changes of the contract
go/             go.mod and go.sum of every program that is built from Go modules
"""
