"""The `poste` command: everything on one machine, each part on its own, and the client's verbs."""
