"""The human parser's training: people to learn from, what is done to their pictures, and the loop."""
