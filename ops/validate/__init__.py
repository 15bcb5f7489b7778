"""Validates the manifests: renders them, and checks the rendered objects."""
