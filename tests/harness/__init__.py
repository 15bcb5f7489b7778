"""The system under test: its processes, and the test tasks."""
