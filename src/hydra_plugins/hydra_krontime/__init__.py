"""What krontime adds to Hydra: a sweeper that outlives its failures, and a launcher for Ray.

Hydra imports this in every program of the environment that uses it, so nothing heavy is imported at the top.
"""
