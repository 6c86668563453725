"""The embedded Supabase: one URL of real parts, for the demo, the tests and trying things out (extra ``local``)."""

DEFAULT_PORT = 54321
"""Where `ambara local up` serves unless told otherwise; the Supabase CLI uses the same."""
