"""The tests: `unit` without network or processes, `integration` with a real Valkey, `e2e` with the real service."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the checkout
