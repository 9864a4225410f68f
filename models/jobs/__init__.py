"""The plan of jobs, one job, the workers that share them, and the commands train and predict."""
