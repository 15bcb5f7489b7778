"""The two example tasks. Delete this folder when you have added your own tasks."""
