"""Blocks used by two model families or more."""
