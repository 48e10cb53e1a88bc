"""Fast forms, each beside the plain definition that it must equal."""
