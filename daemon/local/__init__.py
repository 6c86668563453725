"""The embedded Supabase: one URL of real parts, for the demo, the tests and trying things out (extra ``local``)."""
