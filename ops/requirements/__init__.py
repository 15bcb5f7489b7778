"""The virtual environment, its packages, and the lock files under requirements/."""
