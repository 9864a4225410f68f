"""The program: its commands, and what the longer ones do."""
