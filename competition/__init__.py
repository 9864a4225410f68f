"""What is predicted and how it is scored: configuration, tables, checks and metrics."""
