"""The results of a run: gathered once as sections, and written as report.md and as one page."""
