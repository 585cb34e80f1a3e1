"""Datasets: readers of sources, the resumable run over them, its shards, and other people's formats."""
