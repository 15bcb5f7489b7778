"""The commands of `sluice`, a module each: its options (`add`) and what it does (`run`).

A command imports what it needs when it runs: numba takes a second to load, and not every command needs it.
"""
