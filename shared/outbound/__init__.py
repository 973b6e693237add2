"""Calls to other hosts: which the operator allows, and connections to the very addresses that were checked."""
