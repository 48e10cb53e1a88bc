"""What one forward of a host did."""
