"""Turns request bodies into pixels: forms, decoder processes with limits, the preprocessing of the serving model."""
