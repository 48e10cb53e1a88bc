"""From a trace to ranked sites."""
