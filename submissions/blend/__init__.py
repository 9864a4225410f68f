"""From base predictions to one prediction: candidates, selection, stacks, decisions and post-processing."""
