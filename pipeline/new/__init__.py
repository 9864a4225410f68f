"""Writing a YAML for three CSV files: roles of columns, metric, folds and stages."""
