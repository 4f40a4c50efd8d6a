"""The catalogue as this gateway has it: followed, kept on disk, and the table of the routes that services have by it.

Replicas, their pools, links and circuit breakers are in `poste.upstream`, which the courier has too.
"""
