"""Any Whisper: a hub id such as ``openai/whisper-small``, or a local directory."""
