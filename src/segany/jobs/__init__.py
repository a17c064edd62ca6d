"""Pipelines over many items that can be interrupted and resumed."""
