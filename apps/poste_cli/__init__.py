"""The `poste` command: everything on one machine, each part by itself, and the client's commands."""
