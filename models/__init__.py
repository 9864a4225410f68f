"""One column of predictions per stage and target: K-fold jobs, their weights and predictions."""
