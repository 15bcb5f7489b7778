"""Nothing accepted is lost: real processes under faults, and a checker that looks at what came of every post.

    clients --> two APIs --> proxy --> three RabbitMQ nodes <-- proxy <-- workers, recorder <--> Redis
       |                                                                     |
    ledger (what was sent, what was answered)                             effects (what was run)
       `------------------------------> checker <----------------------------'
                                           ^
    nemesis (faults, by a schedule that a seed repeats) --> faults (what was done, when)

All of it runs in network and process namespaces of its own, which end with their first process.
"""
