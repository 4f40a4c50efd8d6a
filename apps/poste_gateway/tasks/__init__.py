"""Tasks: read, waited for and listed; and the operators' verbs."""
