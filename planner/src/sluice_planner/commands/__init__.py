"""The commands of `sluice`, a module each: what it understands, and what it does.

They import what they need when they run: numba takes a second to load, and not each one needs it.
"""
