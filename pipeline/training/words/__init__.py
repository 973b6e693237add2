"""The words of a catalogue's own listings: what a site writes into all of them, and a text encoder for the rest."""
