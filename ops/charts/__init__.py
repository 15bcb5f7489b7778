"""The real charts of helm-releases/, in a folder outside of the repository: value keys, and effects of our values."""
