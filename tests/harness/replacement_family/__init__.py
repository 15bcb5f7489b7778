"""An example of a team's family of tasks. Tests copy it into apps/tasks of a clone, in place of the examples."""
