"""Tests of `competition`."""
