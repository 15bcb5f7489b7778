"""The real charts of helm-releases/, from a folder outside of the repository: their keys, and what our values do."""
