"""Generate the demo catalogue: invented listings with rendered photos."""
