"""Everything on one machine: what `poste up` and `poste demo` run, and how one speaks to a running `up`. Linux only."""
