"""The demo: a team's round, or several, on the embedded Supabase with a real daemon and synthetic speech."""
