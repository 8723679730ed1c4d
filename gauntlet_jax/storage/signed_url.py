"""URLs that are signed with a pair of keys, and with nothing else of this machine.

The storage libraries add what they find in the process's environment, such as the session token of the operator's own
credentials, which must not be sent to a stranger's server. So signature version 4 (query string form) is computed here.
"""

import datetime
import hashlib
import hmac
from urllib.parse import quote, urlencode, urlsplit

from gauntlet_jax.storage.endpoints import Address

_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_url(address: Address, method: str, key: str, at: datetime.datetime, seconds: int) -> str:
    """A URL with which everybody may do one thing for a while.

    Args:
      address: of a bucket, with both of its public read keys.
      method: "GET" or "HEAD".
      key: of the object, with the address's prefix.
      at: now, UTC.
      seconds: for which it holds.

    Returns:
      The URL; the secret key is not in it.
    """
    day, now = f"{at:%Y%m%d}", f"{at:%Y%m%dT%H%M%SZ}"
    scope = f"{day}/{address.region}/s3/aws4_request"
    path = quote(f"/{address.bucket}/{key}", safe="/~")
    query = urlencode(
        {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{address.access_key}/{scope}",
            "X-Amz-Date": now,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        },
        quote_via=quote,
        safe="~",
    )
    host = urlsplit(address.endpoint).netloc
    request = "\n".join((method, path, query, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))
    to_sign = "\n".join((_ALGORITHM, now, scope, hashlib.sha256(request.encode()).hexdigest()))
    signer = f"AWS4{address.secret_key}".encode()
    for part in (day, address.region, "s3", "aws4_request"):
        signer = _keyed(signer, part)
    return f"{address.endpoint}{path}?{query}&X-Amz-Signature={_keyed(signer, to_sign).hex()}"


def _keyed(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
