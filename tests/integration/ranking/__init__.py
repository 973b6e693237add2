"""Re-ranking by what people clicked, chose and bought."""
