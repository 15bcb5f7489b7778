"""Checks that no accepted task is lost: real processes under faults, and a checker that examines every post.

    clients --> two APIs --> proxy --> three RabbitMQ nodes <-- proxy <-- workers, recorder <--> Redis
       |                                                                     |
    ledger (requests, answers)                                            effects (steps of tasks)
       `------------------------------> checker <----------------------------'
                                           ^
    nemesis (faults, by a schedule that a seed reproduces) --> faults (kinds, times)

Everything runs in its own network and process namespaces, which end with their first process.
"""
