"""Metrics, evaluation of trained runs, prediction, and comparison of many runs.

Light to import: `fusionzoo.evaluate`, `fusionzoo.predict` and `fusionzoo.compare` live in the modules of this package
and are loaded at first use.
"""
