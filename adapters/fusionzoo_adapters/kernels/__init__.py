"""Fast forms that one host needs, each beside its plain definition."""
