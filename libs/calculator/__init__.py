"""The stubs of the sample services."""
