"""The learning loop's shell: what is trained on, the child that trains, versions on disk, and their ledger."""
