"""Between the words of the queue and the messages of `poste.v1`."""
