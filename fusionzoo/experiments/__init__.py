"""Several runs or a saved one: comparison, cross-validation, reproduction, evaluation, prediction, cost."""
