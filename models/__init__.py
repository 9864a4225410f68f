"""Stages and their K-fold jobs, which give out-of-fold and test predictions."""
