"""One file a public repository whose model the patcher knows by sight: site, layout, lengths, repairs."""
