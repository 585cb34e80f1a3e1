"""Defaults that the command line and Python have in common. Light to import."""

BATCH_SIZE = 16
"""Images of a batch, and people fitted together."""

SHARD_SIZE = 64
"""Batches in a shard."""

MIN_HEIGHT = 0.1
"""Of people worth a fit, as a share of the picture's height. Smaller ones are mostly background: each costs as much as
a large one, and shows too little to be fitted well."""

TIMEOUT_S = 300.0
"""Of a picture's detection and parsing, and of the fit of each person."""
