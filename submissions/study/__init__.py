"""Evidence for defaults: one YAML of stage variants, measured as ordinary jobs."""
