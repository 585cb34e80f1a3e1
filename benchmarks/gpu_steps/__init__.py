"""The steps of `benchmarks/gpu.py`, a module a subject; each step yields results as it has them."""
