"""The delta index: photos put and deleted since a snapshot was built, searched together with it."""
