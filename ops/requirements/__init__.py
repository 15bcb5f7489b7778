"""The virtual environment, the packages in it, and the lock files under requirements/."""
