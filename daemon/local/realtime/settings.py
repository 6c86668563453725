"""Every number of the bridge, with the value that the real server uses unless the sentence says otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """How a `RealtimeBridge` behaves. Times are seconds, sizes are octets."""

    db_url: str
    """libpq connection string of a role that may replicate and may `set role` to the roles named in tokens."""
    jwt_secret: str
    """HS256 secret, as text."""
    publication: str = "supabase_realtime"

    poll_interval_s: float = 0.1
    """Pause between two looks at the slot; after a delivery the next look follows at once."""
    poll_timeout_s: float = 15.0
    """A look that takes longer costs the connection, and with it the temporary slot."""
    poll_max_changes: int = 100
    """Passed to PostgreSQL, which still returns whole transactions."""
    keep_alive_s: float = 600.0
    """The slot outlives the last subscription for this long."""
    publication_check_s: float = 60.0
    """A table that enters or leaves the publication is noticed within this time."""

    connect_timeout_s: float = 5.0
    reconnect_min_s: float = 0.1
    reconnect_max_s: float = 5.0
    give_up_after_s: float = 85.0
    """With the database away for this long, the poller ends for good: joined channels stay deaf, without a word."""
    subscribe_retry_s: float = 5.0
    """A subscription that failed because the database was away is tried again after this time."""

    max_events_per_second: float = 100.0
    """Rows times matching subscriptions; at or above this mean, what is polled is thrown away silently."""
    rate_bucket_s: float = 5.0
    rate_buckets: int = 12

    max_record_bytes: int = 1024 * 1024
    """A longer change is sent with its short fields alone and `Error 413: Payload Too Large`."""

    idle_timeout_s: float = 62.0
    """Closed with 1000 when the client has sent nothing, pings included, for this long."""
    no_channel_timeout_s: float = 42.0
    """A socket on which no channel is joined is cut, without a close frame, after this long."""
    handshake_error_delay_s: float = 0.0
    """The real server waits 2 s before it refuses a handshake."""
    join_error_delay_s: float = 0.0
    """The real server blocks the whole socket for 5 s before it refuses a join."""

    max_queue_frames: int = 100_000
    max_queue_bytes: int = 64 * 1024 * 1024
    """A client that reads so slowly that more than this waits for it is cut."""
    max_channels: int = 100
    """Per socket."""
