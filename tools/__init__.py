"""Set-up and test tooling of Groundcrew; each module is a command: ``python -m tools.<module>``."""
