"""Studies of published claims: a YAML each, and the code of those that need stages of their own."""
