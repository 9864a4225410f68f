"""What is predicted and how it is scored: configuration, tables, checks, metrics. Imports no other package of
ours.
"""
