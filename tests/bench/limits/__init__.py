"""Limits: the least that could do the same work, each a program that says its port, or its result, on stdout."""
