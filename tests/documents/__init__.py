"""What the documentation tells of the code, written from the code: `make docs`."""
