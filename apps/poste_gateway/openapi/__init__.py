"""The OpenAPI description of what the catalogue serves, made from the services' descriptors."""
