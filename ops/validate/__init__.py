"""Validates the manifests as a cluster would: renders them, and looks at what comes out."""
