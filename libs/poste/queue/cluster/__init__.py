"""The way to the right master of a Redis Cluster, with the same promise as to a single server.

redis-py's own `RedisCluster` can't keep that promise. A connection that was refused and an answer that was lost are the
same error to it; it asks a master that hangs for the table of slots before it sends anything to the others, so that all
queues stand still with one; and it sends WAITAOF wherever it likes. So this room routes, and nothing more: every master
has a plain client of ours. A redirection proves that nothing was executed, so it is followed; every other error goes to
the caller as it is.
"""
