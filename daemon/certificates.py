"""Which certificates are trusted, and in words why one is not."""

from __future__ import annotations

import os
import ssl

from daemon.errors import ConfigurationError

FILE_VARIABLE = "SSL_CERT_FILE"
DIRECTORY_VARIABLE = "SSL_CERT_DIR"

EXPIRED, WRONG_NAME, UNKNOWN = "certificate-expired", "certificate-name", "certificate-unknown"
REASONS = (EXPIRED, WRONG_NAME, UNKNOWN)
"""Of an error."""
_BY_CODE = {9: EXPIRED, 10: EXPIRED, 62: WRONG_NAME, 63: WRONG_NAME, 64: WRONG_NAME}
"""By X509_V_ERR_*: not yet valid, expired; another host, address or number."""
_REMEDIES = {
    EXPIRED: "renew it there, and see that this machine's clock is right",
    WRONG_NAME: "SUPABASE_URL has to name the host that it is made out to",
    UNKNOWN: "if the project's authority is its own, add it to this machine's list, or name a file that holds its "
    f"certificate in {FILE_VARIABLE}",
}


def trusted() -> ssl.SSLContext:
    """The authorities in SSL_CERT_FILE or SSL_CERT_DIR, else this machine's and those that come with the HTTP client.

    The websocket of Realtime goes by the same variables and the machine's list. Raises `ConfigurationError` where
    authorities cannot be read.
    """
    import httpx  # late, as in the commands

    try:
        context = httpx.create_ssl_context()
        if not (os.environ.get(FILE_VARIABLE) or os.environ.get(DIRECTORY_VARIABLE)):
            context.load_default_certs()
    except OSError as error:  # of the file, or of what stands in it
        variable = FILE_VARIABLE if os.environ.get(FILE_VARIABLE) else DIRECTORY_VARIABLE
        why = os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else "no certificate"
        raise ConfigurationError(
            f"{variable} names {os.environ.get(variable)!r}, which cannot be read as certificates ({why}): correct it, "
            "or leave it out."
        ) from None
    return context


def distrust(error: BaseException) -> tuple[str, str] | None:
    """Why a certificate does not verify, as a sentence with its remedy, and a reason; None if that is not the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = _BY_CODE.get(cause.verify_code, UNKNOWN)
            said = cause.verify_message.rstrip(".")
            return f"The certificate of SUPABASE_URL does not verify ({said}): {_REMEDIES[reason]}.", reason
        cause = cause.__cause__ or cause.__context__
    return None
