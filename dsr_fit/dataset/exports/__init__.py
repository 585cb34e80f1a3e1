"""Label formats of other projects, one module each; every writer takes labels, the output path and the images' folder."""
