"""The checks of the conformance suite, one rule per function."""
