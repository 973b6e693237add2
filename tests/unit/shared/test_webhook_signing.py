"""Webhooks without a network: which URLs may be called, which addresses are public, and that signatures verify."""

import json
import time
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from shared.errors import WebhookRefused
from shared.outbound.hosts import Target, is_public, parse_hosts
from shared.webhooks.signing import WebhookMessage, WebhookPolicy, event_body, parse_secrets, sign

SECRET = "whsec_" + b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()
LISTED = "hooks.example.org, Other.example.org:8443, 93.184.216.34, [2606:2800:220:1::0:1]:8443, 10.0.0.5, local:80"


def policy(hosts: str = LISTED, *, allow_private: bool = False) -> WebhookPolicy:
    return WebhookPolicy(parse_hosts(hosts), (SECRET,), allow_private)


# Which URLs may be called

ALLOWED = {
    "https://hooks.example.org": ("https", "hooks.example.org", 443, "/"),
    "https://hooks.example.org/": ("https", "hooks.example.org", 443, "/"),
    "HTTPS://Hooks.Example.ORG:443/A/b?c=%20d&e": ("https", "hooks.example.org", 443, "/A/b?c=%20d&e"),
    "https://hooks.example.org?token=1": ("https", "hooks.example.org", 443, "/?token=1"),
    "https://hooks.example.org:/x": ("https", "hooks.example.org", 443, "/x"),
    "https://hooks.example.org//evil.example/x": ("https", "hooks.example.org", 443, "//evil.example/x"),
    "https://other.example.org:8443/x": ("https", "other.example.org", 8443, "/x"),
    "https://93.184.216.34/x": ("https", "93.184.216.34", 443, "/x"),
    "https://[2606:2800:0220:0001:0:0:0:1]:8443/x": ("https", "2606:2800:220:1::1", 8443, "/x"),
    "https://hooks.example.org/" + "x" * 2022: ("https", "hooks.example.org", 443, "/" + "x" * 2022),
}


@pytest.mark.parametrize("url", ALLOWED)
def test_a_url_of_a_listed_host_is_taken_apart(url: str) -> None:
    assert policy().check(url) == Target(*ALLOWED[url])


REFUSED = {
    "https://evil.example/x": "ask the operator",
    "https://sub.hooks.example.org/x": "ask the operator",
    "https://hooks.example.org.evil.example/x": "ask the operator",
    "https://hooks.example.org./x": "ask the operator",
    "https://hooks%2eexample.org/x": "ask the operator",
    "https://hooks.example.org:8443/x": "allow hooks.example.org:8443",
    "https://hooks.example.org:80/x": "allow hooks.example.org:80",
    "https://other.example.org/x": "allow other.example.org:443",
    "https://hooks.example.org:0/x": "allow hooks.example.org:0",
    "https://hooks.example.org:65536/x": "cannot be read",
    "https://hooks.example.org:port/x": "cannot be read",
    "https://hooks.example.org:-1/x": "cannot be read",
    "https://[::1/x": "cannot be read",
    "https://[hooks.example.org]/x": "",
    "https://[2606:2800:220:1::2]:8443/x": "ask the operator",
    "https://[::ffff:93.184.216.34]/x": "ask the operator",
    "https://93.184.216.35/x": "ask the operator",
    "https://1572395042/x": "ask the operator",
    "https://0x5db8d822/x": "ask the operator",
    "https://093.184.216.34/x": "ask the operator",
    "https://10.0.0.5/x": "not an address on the internet",
    "http://hooks.example.org/x": "https://",
    "http://local/x": "https://",
    "ftp://hooks.example.org/x": "https://",
    "hooks.example.org/x": "names no host",
    "//hooks.example.org/x": "https://",
    "https:hooks.example.org": "names no host",
    "https:///x": "names no host",
    "https://:443/x": "names no host",
    "https://user@hooks.example.org/x": "user name or password",
    "https://user:pass@hooks.example.org/x": "user name or password",
    "https://@hooks.example.org/x": "user name or password",
    "https://evil.example@hooks.example.org/x": "user name or password",
    "https://hooks.example.org@evil.example/x": "user name or password",
    "https://hooks.example.org/x#part": "fragment",
    "https://hooks.example.org/#": "fragment",
    "https://hooks.example.org#@evil.example/": "fragment",
    "https://hooks.example.org/a b": "percent-encode",
    "https://hooks.example.org/é": "percent-encode",
    "https://hooks.example.org\\@evil.example/": "percent-encode",
    "https://hooks.example.org/\r\nHost: evil.example": "percent-encode",
    "https://hooks.example.org\t/": "percent-encode",
    " https://hooks.example.org/": "percent-encode",
    "https://hooks.example.org/x\n": "percent-encode",
    "https://höoks.example.org/": "percent-encode",
    "": "percent-encode",
    "https://hooks.example.org/" + "x" * 2023: "2048 is the limit",
}


@pytest.mark.parametrize("url", REFUSED)
def test_any_other_url_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        policy().check(url)
    assert REFUSED[url] in str(refused.value)
    assert "pass@" not in str(refused.value)


def test_without_hosts_every_url_is_refused_because_webhooks_are_off() -> None:
    with pytest.raises(WebhookRefused, match="webhooks are off here"):
        WebhookPolicy().check("https://hooks.example.org/")


@pytest.mark.parametrize("url", ["http://hooks.example.org/", "http://local/", "http://10.0.0.5/", "https://10.0.0.5/"])
def test_plain_http_and_private_addresses_are_for_closed_networks(url: str) -> None:
    assert policy(allow_private=True).check(url).scheme == url.partition(":")[0]


@given(st.text(max_size=60).map(lambda text: "https://" + text) | st.text(max_size=60))
def test_whatever_is_given_is_refused_or_goes_to_a_listed_host(url: str) -> None:
    try:
        target = policy().check(url)
    except WebhookRefused:
        return
    assert target.host in ("hooks.example.org", "other.example.org", "93.184.216.34", "2606:2800:220:1::1")


def test_an_allow_list_is_read_once_into_one_form() -> None:
    listed = ("hooks.example.org", "other.example.org:8443", "93.184.216.34", "[2606:2800:220:1::1]:8443")
    assert parse_hosts(LISTED) == (*listed, "10.0.0.5", "local:80")
    assert parse_hosts(" a.example ,,A.example,") == ("a.example",)
    assert parse_hosts("") == parse_hosts(" , ") == ()


@pytest.mark.parametrize(
    "entry",
    [
        "https://a.example", "a.example/x", "*.example", "a.example:0", "a.example:65536", "a.example:", "a.example:x",
        "user@a.example", "a b", "::1", "[::1", "[fe80::1%eth0]", "a..example", ".example", "a.example.", "-a.example",
        "127.1", "2130706433", "0x7f000001", "127.0.0.01", "é.example", "a" * 64 + ".example", "[a.example]",
        "a.example?",
    ],
)  # fmt: skip
def test_an_allow_list_with_anything_but_hosts_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        parse_hosts(f"good.example,{entry}")


# Addresses

PUBLIC = [
    "8.8.8.8", "93.184.216.34", "1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1111",
    "2a00:1450:4001::1", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8",
]  # fmt: skip
NOT_PUBLIC = [
    "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1",
    "::7f00:1", "::8.8.8.8", "fe80::1", "fe80::1%1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1",
    "2001:db8::1", "3fff::1", "2001::1", "2001:0:7f00:1::1", "100::1", "64:ff9b:1::8.8.8.8", "4000::1",
    "5f00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::1",
    "2002:a00:1::1", "2002:a9fe:a9fe::1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_hosts_address_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_every_other_address_is_not_however_it_is_wrapped(address: str) -> None:
    assert not is_public(address)


# Signatures


def headers(message_id: str, timestamp: int, signature: str) -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


@given(
    keys=st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3, unique=True),
    message_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    data=st.dictionaries(st.text(), st.text() | st.integers() | st.none()),
)
def test_the_specifications_own_library_verifies_what_is_signed(
    keys: list[bytes], message_id: str, data: dict[str, object]
) -> None:
    secrets = parse_secrets(",".join("whsec_" + b64encode(key).decode() for key in keys))
    now = int(time.time())
    body = event_body("job.succeeded", now, data)
    signature = sign(message_id, now, body, secrets)
    for secret in secrets:  # a receiver has one of them, old or new
        assert Webhook(secret).verify(body, headers(message_id, now, signature))["data"] == data


def test_a_message_that_was_changed_does_not_verify() -> None:
    now = int(time.time())
    body = event_body("job.failed", now, {"id": "a"})
    signature = sign("a", now, body, [SECRET])
    Webhook(SECRET).verify(body, headers("a", now, signature))
    for changed_body, changed in (
        (body + b" ", headers("a", now, signature)),
        (body, headers("b", now, signature)),
        (body, headers("a", now + 1, signature)),
        (body, headers("a", now, sign("a", now, body, ["whsec_" + b64encode(b"x" * 24).decode()]))),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(changed_body, changed)


def test_a_body_says_what_happened_and_when() -> None:
    body = json.loads(event_body("job.succeeded", 1_000_000.25, {"id": "a", "é": None}))
    assert body == {"type": "job.succeeded", "timestamp": "1970-01-12T13:46:40.250Z", "data": {"id": "a", "é": None}}


@pytest.mark.parametrize(
    "text",
    [
        "", "whsec_", "abc", b64encode(b"x" * 32).decode(), "whsec_" + b64encode(b"x" * 23).decode(),
        "whsec_" + b64encode(b"x" * 65).decode(), SECRET[:-1], SECRET + "!", f"{SECRET},", f"{SECRET},whsec_x",
        SECRET + "é", SECRET.upper(),
    ],
)  # fmt: skip
def test_a_secret_of_another_form_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as refused:
        parse_secrets(text)
    assert SECRET[6:20] not in str(refused.value)


def test_nothing_that_holds_a_secret_shows_it() -> None:
    shown = f"{policy()!r} {WebhookMessage('https://a/?token=1', b'private')!r} {policy().check('https://hooks.example.org/?token=1')!r}"
    assert not any(secret in shown for secret in (SECRET, "token", "private'"))
