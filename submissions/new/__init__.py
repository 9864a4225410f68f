"""A YAML from three CSV files: what their columns are, and which metric, folds and stages fit."""
