"""One file per model: where its repository is, how it is built, how it is called. Nothing of its code is here."""
