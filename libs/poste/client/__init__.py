"""The async client for people's own programs. Speaks the gateway's REST only."""
