"""Where users' addresses may lead: every disguise of an inside address, and the operator's list."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import httpx
import pytest
from pydantic import ValidationError

from frond.contracts.errors import JobRejected
from frond.runtime import Egress, ServiceSettings
from frond.runtime.egress import number_of

INSIDE = [
    # loopback, in every way of writing it
    "127.0.0.1", "127.8.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1",
    "017700000001", "localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain",
    "127.0.0.1.", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "0.0.0.0", "0", "[::1]", "[::]",
    # private, shared, link-local, and where clouds keep their metadata
    "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "100.100.100.200", "169.254.169.254",
    "169.254.170.2", "0xa9fea9fe", "2852039166", "168.63.129.16", "192.0.0.192", "[fe80::1]",
    "[fe80::1%25eth0]", "[fd00:ec2::254]", "[fc00::1]", "[fec0::1]",
    # multicast, reserved, documentation, benchmarks
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "[ff02::1]",
    "[2001:db8::1]",
    # an IPv4 address inside an IPv6 one: mapped, compatible, NAT64, 6to4, Teredo
    "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]",
    "[2001:0:7f00:1::]",
]  # fmt: skip
PUBLIC = [
    "example.org", "93.184.215.14", "0x5db8d70e", "[2606:2800:21f::1]", "[64:ff9b::5db8:d70e]",
    "[::ffff:93.184.215.14]", "xn--bcher-kva.example", "bücher.example",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_nothing_inside_is_reached_by_default(host: str) -> None:
    """The empty list allows public addresses alone; the sentence names the setting, unless no list
    could allow what is no name by the standard either."""
    with pytest.raises(JobRejected, match=r"FROND_EGRESS_ALLOW|IDNA 2008"):
        Egress().check(f"http://{host}:8080/hook")


@pytest.mark.parametrize("host", PUBLIC)
def test_what_is_public_passes(host: str) -> None:
    Egress().check(f"https://{host}/hook")


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "file:///etc/passwd", "http://", "http://[::1", "x", "http://./", "//a/b",
            "gopher://127.0.0.1:25/", "http://h:99999/", "http://h:0/", "http://h:1:2/"],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(JobRejected):
        Egress("0.0.0.0/0,::/0").check(url)


def test_the_operators_list_opens_what_it_names_and_no_more() -> None:
    egress = Egress(" 127.0.0.0/8, 10.2.3.4 ,fd12::/16,Hooks.Internal. ")
    for host in ("127.0.0.1", "2130706433", "localhost", "10.2.3.4", "[fd12::1]",
                 "[::ffff:127.0.0.1]", "hooks.internal", "HOOKS.internal."):  # fmt: skip
        egress.check(f"http://{host}/")
    for host in ("10.2.3.5", "169.254.169.254", "[fd13::1]", "[::1]"):
        with pytest.raises(JobRejected):
            egress.check(f"http://{host}/")


@pytest.mark.parametrize(
    "domain", [*(h for h in INSIDE if "%" not in h), "[IPv6:::1]", "[8.8.8.8]", "8.8.8.8", "134744072",
               "mailhost", "com.", "a..example", ".example", "x", "b.c＠d.e", "b.c:25"],
)  # fmt: skip
def test_mail_goes_to_public_domains_alone(domain: str) -> None:
    """No address in any way of writing it, not this machine, no name that only a network inside
    knows; whatever networks the operator has opened for webhooks."""
    for egress in (Egress(), Egress("0.0.0.0/0,::/0")):
        with pytest.raises(JobRejected, match="e-mail"):
            egress.check_mail(f"ana@{domain}")


@pytest.mark.parametrize(
    "address",
    ["a@b.example\n", "\na@b.example", "a\0@b.example", "a@b.exam\0ple", "a\x7f@b.example",
     "a\u202e@b.example", "a\u2028@b.example", "a\ud800@b.example", "a@b.example\r\nBcc: c@d.example",
     "a@b.example,c@d.example", "a <a@b.example>", "a@b@c.example", "@b.example", "a@", "a", "",
     # a comment, a group, a literal, an escape, a quote, encoded words: other addresses to their readers
     "root(@b.example", "a:b@c.example", "root[@b.example", "a\\b@c.example", '"a b"@c.example',
     "=?utf-8?q?root=40intranet?=@b.example", "a@=?utf-8?q?intranet?=.b.example",
     # RFC 5322's atoms have dots between them
     ".a@b.example", "a.@b.example", "a..b@c.example", f"{'a' * 65}@b.example"],
)  # fmt: skip
def test_what_is_no_mail_address_is_refused(address: str) -> None:
    """One recipient, the same to whoever reads it, nothing that ends a line, nothing unseen."""
    with pytest.raises(JobRejected):
        Egress().check_mail(address)


def test_mail_addresses_that_pass() -> None:
    """Of any script; and a domain without a dot that the operator has named."""
    for address in ("ana@example.org", "o'neil+x@a.b.co.uk", "ana@bücher.example", "ана@пример.рф",
                    "a@उदाहरण.भारत", "first.last=1/2?{x}@example.org", f"{'a' * 64}@example.org"):  # fmt: skip
        Egress().check_mail(address)
    Egress("mailhost,localhost").check_mail("ana@MailHost")


@pytest.mark.parametrize(
    ("host", "known"),
    [("straße.example", "xn--strae-oqa.example"), ("faß.βόλος.example.", "xn--fa-hia.xn--nxasmm1c.example"),
     ("BÜCHER.example", "xn--bcher-kva.example"), ("a。b.example", "a.b.example")],
)  # fmt: skip
async def test_a_name_has_one_ascii_form(host: str, known: str) -> None:
    """By IDNA 2008, as the client has it: by IDNA 2003, straße is strasse, another one's name. What
    is looked at, looked up and on the operator's list is what stands in Host."""
    asked = []

    async def resolve(host: str, port: int, tenant: str | None) -> Sequence[str]:
        asked.append(host)
        return ["10.0.0.1"]

    url = f"http://{host}/"
    assert httpx.URL(url).raw_host.decode().rstrip(".") == known
    assert await Egress(known, resolve).addresses(url) == ["10.0.0.1"]
    assert asked == [known]


@pytest.mark.parametrize(
    "host", ["☃.example", "ｅｘａｍｐｌｅ.org", "a\u200db.example", "999.1.1.1", "a..b", f"{'a' * 64}.example",
             "ex ample.com", "127%2e0%2e0%2e1", "-a.example"],
)  # fmt: skip
def test_a_host_without_an_ascii_form_is_refused_at_the_door(host: str) -> None:
    """Nothing could be sent there; the sentence says what to write."""
    with pytest.raises(JobRejected, match="as its owner registered it"):
        Egress("0.0.0.0/0,::/0").check(f"http://{host}/")


@pytest.mark.parametrize("entry", ["127.0.0.0/33", "10.2.3", "http://a/", "a b", "-x", "*.example"])
def test_a_slip_in_the_list_is_told_at_the_start(entry: str) -> None:
    with pytest.raises(ValidationError, match="no network, address or host name"):
        ServiceSettings(egress_allow=f"10.0.0.0/8,{entry}")


async def test_a_name_is_judged_by_all_of_its_addresses() -> None:
    """One public and one inside address: refused in either order, unless the list names both."""
    answers = {"two.example": ["93.184.215.14", "169.254.169.254"], "one.example": ["10.0.0.1"]}

    async def resolve(host: str, port: int, tenant: str | None) -> Sequence[str]:
        return answers[host]

    for _ in range(2):
        with pytest.raises(JobRejected):
            await Egress(resolve=resolve).addresses("http://two.example/")
        answers["two.example"].reverse()
    assert await Egress("169.254.169.254", resolve).addresses("http://two.example/") == [
        "93.184.215.14", "169.254.169.254",
    ]  # fmt: skip
    with pytest.raises(JobRejected):
        await Egress(resolve=resolve).addresses("http://one.example/")
    assert await Egress("one.example", resolve).addresses("http://one.example/") == ["10.0.0.1"]


async def test_the_systems_resolver_is_asked() -> None:
    """Numbers in odd spellings come out as the addresses that a connection would go to."""
    assert await Egress("127.0.0.0/8").addresses("http://0x7f.1:80/") == ["127.0.0.1"]
    assert await Egress().addresses("http://0x5db8d70e/") == ["93.184.215.14"]
    with pytest.raises(JobRejected):
        await Egress().addresses(f"http://{'a' * 70}.example/")


def test_numbers_are_read_as_the_resolver_reads_them() -> None:
    assert number_of("127.1") == ip_address("127.0.0.1")
    assert number_of("::1") == ip_address("::1")
    for name in ("example.org", "1.2.3.4.5", "a"):
        assert number_of(name) is None
