"""Submissions to a platform, and the ledger of them."""
