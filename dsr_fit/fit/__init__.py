"""The fit of one body to one image, batched over images."""
