"""One file per public repository whose model the patcher recognises: site, layout, lengths, repairs."""
