"""Tests: sentences about behaviour, each able to fail. `./run.sh test` runs them."""
