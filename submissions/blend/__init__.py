"""From base predictions to one prediction: candidates, decisions, the stack, and the selection."""
