"""The settings of hosts, origins and the path prefix mean what they say, or are refused with the reason."""

import pytest

from shared.errors import CannotStart
from shared.settings import load_settings
from shared.web_addresses import is_trusted, parse_origins, parse_trusted_hosts

# setting -> Host headers that are served, and those that are not
MATCHES = {
    "shop.example.org": (
        ["shop.example.org", "SHOP.example.org:8443", "shop.example.org."],
        ["a.shop.example.org", "org"],
    ),
    "Shop.Example.Org:18555": (["shop.example.org:18555"], ["shop.example.org", "shop.example.org:80", "x:18555"]),
    "shop.example.org:443": (["shop.example.org:443", "shop.example.org"], ["shop.example.org:8443"]),
    "shop.example.org.": (["shop.example.org"], ["shop.example"]),
    "*.example.org": (["a.example.org", "a.b.example.org:81"], ["example.org", "badexample.org", ".example.org"]),
    "*.example.org:81": (["a.example.org:81"], ["a.example.org"]),
    "*": (["anything", "10.1.2.3:80", "[::1]"], ["", "a:b:c"]),
    "10.0.0.7": (["10.0.0.7", "10.0.0.7:8080"], ["10.0.0.70", "10.0.0.7.nip.io"]),
    "[::1]": (["[::1]", "[::1]:8080", "[0:0::1]"], ["[::2]", "::1"]),
    "::1": (["[::1]:8080"], ["[::2]"]),
    "fd00:0::7": (["[fd00::7]"], ["fd00::7"]),
    "[fd00::7]:8080": (["[fd00::7]:8080"], ["[fd00::7]"]),
    "my_api, localhost,,": (["my_api:8080", "localhost"], ["127.0.0.1"]),
}


@pytest.mark.parametrize(("setting", "served", "refused"), [(key, *value) for key, value in MATCHES.items()])
def test_a_setting_means_what_it_says(setting: str, served: list[str], refused: list[str]) -> None:
    trusted = load_settings(trusted_hosts=setting).trusted_host_list
    assert [host for host in served if not is_trusted(host, trusted)] == []
    assert [host for host in refused if is_trusted(host, trusted)] == []


NEVER_MATCH = {
    "https://shop.example.org": "URL",
    "shop.example.org/api": "path or a network",
    "10.0.0.0/8": "path or a network",
    "shop.example.org:http": "host:port",
    "shop.example.org:0": "65535",
    "shop.example.org:65536": "65535",
    "user@shop.example.org": "not a host name",
    "a b": "not a host name",
    "shop.example.org;other.example.org": "not a host name",
    "-shop.example.org": "not a host name",
    "shop..org": "not a host name",
    "shop.*.org": "first label",
    "*shop.example.org": "first label",
    "*.10.0.0.1": "not before an address",
    "127.1": "127.1",
    "300.0.0.1": "300.0.0.1",
    "[::1": "host:port",
    "[10.0.0.1]": "brackets",
    "[fe80::1%eth0]": "zone",
    "1::2::3": "1::2::3",
    "bücher.example": "xn--",
    ",": "names no host",
    " ": "names no host",
}


@pytest.mark.parametrize(("setting", "reason"), NEVER_MATCH.items())
def test_a_setting_that_no_request_could_match_is_refused(setting: str, reason: str) -> None:
    with pytest.raises(CannotStart, match=r"^LOOKALIKE_TRUSTED_HOSTS: ") as refused:
        load_settings(trusted_hosts=setting)
    assert reason in str(refused.value)


def test_the_normal_form_of_a_list_is_parsed_to_the_same() -> None:
    for setting in MATCHES:
        parsed = parse_trusted_hosts(setting)
        assert parse_trusted_hosts(",".join(map(str, parsed))) == parsed


def test_loopback_serves_its_names_and_any_other_address_serves_all() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        trusted = load_settings(host=host).trusted_host_list
        assert is_trusted("localhost:8080", trusted)
        assert is_trusted(load_settings(host=host).authority, trusted)
        assert not is_trusted("evil.example", trusted)
    assert load_settings(host="0.0.0.0").trusted_host_list == ()


def test_origins_take_the_form_in_which_browsers_send_them() -> None:
    assert parse_origins("https://Shop.example:443/, http://[0::1]:3000") == (
        "https://shop.example",
        "http://[::1]:3000",
    )
    assert parse_origins("") == ()


@pytest.mark.parametrize("origin", ["shop.example", "*", "null", "ftp://a", "https://a/b", "https://u@a", "http://a:x"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(CannotStart, match=r"LOOKALIKE_TRUSTED_ORIGINS: .*not an origin"):
        load_settings(trusted_origins=origin)


@pytest.mark.parametrize(
    ("given", "prefix"), [("", ""), ("/", ""), ("/lookalike", "/lookalike"), ("a/b/", "/a/b"), ("/a~1.2_-", "/a~1.2_-")]
)
def test_a_prefix_has_one_form(given: str, prefix: str) -> None:
    assert load_settings(url_prefix=given).url_prefix == prefix


@pytest.mark.parametrize("prefix", ["https://a/b", "/a b", "/a//b", "/a?b", "/../a", "/%2e", '/"><script>'])
def test_what_is_no_path_is_refused_as_prefix(prefix: str) -> None:
    with pytest.raises(CannotStart, match=r"LOOKALIKE_URL_PREFIX: .*not a path"):
        load_settings(url_prefix=prefix)
