"""The sample services: sum, subtraction, multiplication."""
