"""From columns to one prediction: candidates, nested scores, stacks, decisions, post-processing."""
