"""The message-oriented middleware: owns every task's life, and the catalogue. All its state is in Redis."""

from poste.runtime.own_process import importing

with importing():
    import poste.queue.connection
    import poste.runtime.logs  # noqa: F401
