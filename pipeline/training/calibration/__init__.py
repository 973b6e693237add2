"""Calibration on validation listings: when an answer is certain, and how head, neighbours and words are joined."""
