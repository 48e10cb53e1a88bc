"""Questions about a trained model beyond its score: one file for each, which gives numbers and what they say in words."""
