"""How good predictions are: metrics, statistics, and predicting with a model."""
