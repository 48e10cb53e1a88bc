"""Putting it in, and taking it out."""
