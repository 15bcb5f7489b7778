"""Sluice: a task API, its workers, and the contract between them."""
