"""Benchmarks: API, worker and planner compared with other implementations and other commits."""
