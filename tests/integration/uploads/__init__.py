"""Photos of a request: forms, decoders and their sandbox, boxes, large and several photos."""
