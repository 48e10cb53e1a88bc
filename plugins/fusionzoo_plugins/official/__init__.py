"""What the authors did differently: one file for each fusion and objective with a published implementation."""
