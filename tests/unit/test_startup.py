"""Errors of the servers at start: failures of TLS are recognized."""

import ssl
from itertools import pairwise

import pytest

from apps.client.client import _is_untrusted
from apps.startup import tls_failure


def chain(*errors: BaseException) -> BaseException:
    """Return the first error, caused by the second, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def circle(size: int) -> BaseException:
    """Return an error whose chain of causes is a cycle, as aiormq raises it for an immediately reset connection."""
    errors = [ConnectionError(str(number)) for number in range(size)]
    return chain(*errors, errors[0])


@pytest.mark.timeout(10)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_cyclic_chain_of_causes_is_no_tls_failure(size: int) -> None:
    assert tls_failure(circle(size)) is None
    assert not _is_untrusted(circle(size))


def test_tls_failure_is_found_in_a_chain_of_causes() -> None:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "self-signed certificate"
    wrapped = chain(OSError("away"), ConnectionError("closed"), refused)
    assert tls_failure(wrapped) == "its certificate is refused: self-signed certificate"
    assert _is_untrusted(wrapped)
