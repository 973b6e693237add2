"""The API over a real Valkey."""
