"""What the authors of the hosts did differently, and the names of their weights: one file per host."""
