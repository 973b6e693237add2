"""Request bodies to pixels: forms, decoder processes with limits, the preprocessing of the model that serves."""
