"""One typed function for each Lua script: the only callers of scripts, and the only ones that pack KEYS and ARGV.

Durations and instants are in seconds outside and in milliseconds inside. Each function takes what runs its script and
the keys of the queue that it is a step of. All raise StoreUnreached (nothing happened) and StoreLost (it may have); in
its place those that only read, and run no script, raise StoreNotRead.
"""
