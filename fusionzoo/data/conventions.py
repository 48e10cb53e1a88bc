"""What every corpus means by the same words."""

#: The label of an utterance that has none; the loss and the metrics leave it out.
UNLABELLED = -100
#: The splits of a corpus, in the order in which they are reported.
SPLITS = ("train", "dev", "test")
