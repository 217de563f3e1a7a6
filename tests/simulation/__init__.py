"""A seeded simulation of whole sites: days of demand, faults and crashes in seconds.

`make simulate SEEDS=1000` runs it, `make simulate SEED=17` runs one seed again and shows its steps.
"""
