"""What was kept: tasks read, waited for, listed, and the operators' verbs."""
