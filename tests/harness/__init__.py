"""The system under test: its processes, and the tasks that the tests add to it."""
