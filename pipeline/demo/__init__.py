"""The demo catalogue: invented listings, drawn and photographed."""
