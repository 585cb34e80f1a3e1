"""The tables of measured figures, each from committed results: a function a table, in Markdown."""
