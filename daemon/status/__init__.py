"""The page that people look at, and the same for Prometheus and for a supervisor.

It reads and never writes. The database is asked seldom and only while somebody looks; what this process knows of itself
costs nothing.
"""
