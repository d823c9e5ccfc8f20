"""Tasks of one's own: a Python file with a task, or reward functions over a data set with columns."""
