"""What the tests share: one module a part."""
