"""Schemas of methods: what a method takes and returns, named by a fingerprint, and whether one may follow another."""
