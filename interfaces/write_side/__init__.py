"""Composition root of the worker and of the operator's commands that write."""
