"""Stubs of the services that exist for tests only; their protos are in support/proto."""
