"""From columns of predictions to one checked file: blend, stack, write, report."""
