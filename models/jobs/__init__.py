"""Jobs: their plan, one job in a worker, scheduling, budget, and the commands `train` and `predict`."""
