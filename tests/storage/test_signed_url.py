"""Signatures of URLs, against the reference client."""

import datetime

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage import signed_url
from gauntlet_jax.storage.endpoints import parse_address


@given(
    st.from_regex(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,9}(/[A-Za-z0-9_=-]{1,5})?", fullmatch=True),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    st.sampled_from(["https://h.example", "http://h.example:9000", "https://[2606:4700::1]:8443"]),
    st.sampled_from(["GET", "HEAD"]),
)
def test_signatures_are_those_of_the_reference_client(key, secret, endpoint, method):
    address = parse_address(f"s3://bucket/run?endpoint={endpoint}&region=eu-west-3")
    address = type(address)(**{**vars(address), "access_key": "AK/=+", "secret_key": secret})
    at = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    found = signed_url.signed_url(address, method, f"run/{key}", at, 600)
    request = botocore.awsrequest.AWSRequest(method, found.split("?")[0])
    signer = botocore.auth.S3SigV4QueryAuth(
        botocore.credentials.Credentials("AK/=+", secret), "s3", "eu-west-3", expires=600
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: at.replace(tzinfo=None))
        signer.add_auth(request)
    assert found == request.url
