"""The command line. Each command stands in a module of its own and imports what is heavy only when it runs."""
