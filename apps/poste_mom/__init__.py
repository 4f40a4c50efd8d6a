"""The message-oriented middleware: owns every task's life, and the catalogue. All its state is in Redis."""
