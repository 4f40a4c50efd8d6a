"""Who may do what: identities, the keys that prove them, and the role that each of the gateway's own routes needs."""
