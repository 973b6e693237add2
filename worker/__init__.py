"""The workshop: claims jobs and runs them. Never imports flask."""
