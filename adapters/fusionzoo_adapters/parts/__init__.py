"""What the reference hosts are built from, each file named for what it is."""
