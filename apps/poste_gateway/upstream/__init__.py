"""The services behind the gateway: what there is, where its replicas are, and how one is called."""
