"""Kaggle: submissions and their ledger, and offline notebooks, which are packed, verified and uploaded."""
