"""The traps of autoscaling on queues, as rules with ids: `sluice lint`."""
