"""What is known before the image is looked at: the readers of the files in `priors/`."""
