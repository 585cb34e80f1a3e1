"""Other people's label formats, one module each; a writer takes the people chosen and a place to write."""
