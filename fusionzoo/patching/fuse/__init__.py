"""What sits in the host."""
