"""The checks that fusions pass."""
