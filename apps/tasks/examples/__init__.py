"""The two example tasks. Delete this folder once there are tasks of your own."""
