"""Submissions to a platform: its client, and what became of each."""
