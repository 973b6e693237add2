"""One way from photo bytes to pixels: decoding and preprocessing, the same everywhere."""
