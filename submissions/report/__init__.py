"""What a run found: gathered once as sections, and written as report.md and as one page."""
