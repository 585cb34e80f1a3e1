"""Measuring fits and parsers against photos that people have annotated."""
