"""Studies of published claims: one YAML per study, and the code of custom stages."""
