"""How good a bundle is, in figures and pictures."""
