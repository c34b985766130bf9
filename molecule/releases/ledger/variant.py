"""What the releases differ in: their name, how they are broken, and the tasks that they know."""

NAME = "first"
BROKEN = ""
TASKS = ["common"]
