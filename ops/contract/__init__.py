"""Compares the contract between API, workers and clients with the contract of the last release."""
