"""What trains the parser: annotated photos, what is done to them, and the loop."""
