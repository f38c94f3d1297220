"""MaxCompute through its own client: connection, retries, reading, writing and queries.

    names.py        projects, tables, columns and partitions: checked, and quoted for SQL
    credentials.py  keys from the environment, and kept out of every message
    settings.py     the flags that every command on MaxCompute shares
    connection.py   where a project is reached; the client; its errors under our own names
    patience.py     try again while anything moves, give up when nothing does
    sessions.py     the tunnel's sessions, without the client's own endless waiting
    reading.py      row ranges of a table, in spawned workers
    writing.py      blocks of a table, and one commit
    queries.py      SQL, and temporary tables that never outlive a day

Only `names`, `credentials` and `settings` are free of the client, whose import takes a while.
"""
