"""What an operator does: start, back up, promote, reindex, build images."""
