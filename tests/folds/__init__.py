"""Tests of `folds`."""
