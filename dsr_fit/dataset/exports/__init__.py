"""Label formats of other projects, one module each; a writer takes labels, the output path and the images' folder."""
