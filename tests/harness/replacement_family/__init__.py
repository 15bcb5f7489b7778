"""A family of tasks as a team writes one; tests put it into apps/tasks of a clone, in the place of the examples."""
