"""Rendered people to learn from, and batches drawn from them."""
