"""One attempt, against servers that really listen."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from frond.contracts.deliveries import Delivery, State
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobSpec, JobStatus, ModelRef, WindowCounts
from frond.contracts.signing import tenant_secrets
from frond.notifier.delivery import Answer, deliveries_of
from frond.notifier.send import MailSender, WebhookSender, trusted, webhook_client
from frond.notifier.settings import NotifierSettings
from frond.runtime import Egress

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
EVENT = JobCompleted(
    job_id="survey-7", status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED,
    images=ImageCounts(expected=1, completed=1), windows=WindowCounts(total=1, done=1),
    detections={"palme à huile": 3}, finished=datetime(2026, 1, 2, tzinfo=UTC),
)  # fmt: skip


def settings(**more: Any) -> NotifierSettings:
    return NotifierSettings(
        **{"webhook_secret": SecretStr(SECRET), "egress_allow": "127.0.0.0/8", **more}
    )


def delivery(
    *, webhook_url: str | None = None, email: str | None = None, tenant: str | None = None
) -> Delivery:
    spec = JobSpec(
        job_id="survey-7", model=ModelRef(name="m", digest="0" * 64),
        webhook_url=webhook_url, email=email, tenant=tenant,
    )  # fmt: skip
    return deliveries_of(EVENT, spec, datetime.now(UTC))[0]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with webhook_client(settings()) as client:
        yield client


async def post(http: httpx.AsyncClient, url: str, **more: Any) -> Answer:
    sender = WebhookSender(settings(**more), http)
    return await sender(delivery(webhook_url=url), datetime.now(UTC))


async def test_a_receiver_can_verify_the_signature(receiver: Any, http: httpx.AsyncClient) -> None:
    """Any Standard Webhooks library takes it; with another secret, or other bytes, it does not."""
    answer = await post(http, receiver.url)
    assert answer.state is State.DELIVERED
    got = receiver.next()
    assert got.headers["webhook-id"] == EVENT.event_id
    verified = Webhook(SECRET).verify(got.body, got.headers)
    assert verified["data"]["detections"] == {"palme à huile": 3}
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body + b" ", got.headers)


async def test_two_secrets_sign_while_one_replaces_the_other(
    receiver: Any, http: httpx.AsyncClient
) -> None:
    both = settings(webhook_secret=SecretStr(f"{SECRET} {OLD_SECRET}"))
    await WebhookSender(both, http)(delivery(webhook_url=receiver.url), datetime.now(UTC))
    got = receiver.next()
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(got.body, got.headers)


@pytest.mark.parametrize("rotating", [False, True])
async def test_each_tenant_has_a_secret_of_its_own(
    rotating: bool, receiver: Any, http: httpx.AsyncClient
) -> None:
    """What is signed for beta is a signature to nobody else: not to acme's receiver, whose address
    beta may name, nor to the installation's; the body says whose job it is. Secrets rotate."""
    masters = f"{SECRET} {OLD_SECRET}" if rotating else SECRET
    sender = WebhookSender(settings(webhook_secret=SecretStr(masters)), http)
    await sender(delivery(webhook_url=receiver.url, tenant="beta"), datetime.now(UTC))
    got = receiver.next()
    for secret in tenant_secrets(masters, "beta").split():
        assert Webhook(secret).verify(got.body, got.headers)["data"]["tenant"] == "beta"
    for other in f"{masters} {tenant_secrets(masters, 'acme')}".split():
        with pytest.raises(WebhookVerificationError):
            Webhook(other).verify(got.body, got.headers)


async def test_redirects_are_not_followed(receiver: Any, http: httpx.AsyncClient) -> None:
    """A redirect could lead a signed body anywhere; it counts as a failure, to be tried again."""
    receiver.script[:] = [302]
    receiver.headers["location"] = receiver.url + "/elsewhere"
    answer = await post(http, receiver.url)
    assert answer.state is State.PENDING
    assert receiver.next().path == "/hook"
    assert receiver.posts.empty()


async def test_a_receivers_cookies_are_kept_nowhere(receiver: Any, http: httpx.AsyncClient) -> None:
    """Another tenant's receiver may be at the same address, and must get nothing of them."""
    receiver.script[:] = [500]
    receiver.headers["set-cookie"] = "session=mallory; Path=/"
    sender = WebhookSender(settings(), http)
    await sender(delivery(webhook_url=receiver.url, tenant="mallory"), datetime.now(UTC))
    await sender(delivery(webhook_url=receiver.url, tenant="acme"), datetime.now(UTC))
    assert ["cookie" in receiver.next().headers for _ in range(2)] == [False, False]
    assert not http.cookies.jar


async def test_retry_after_is_heard(receiver: Any, http: httpx.AsyncClient) -> None:
    receiver.script[:] = [503]
    receiver.headers["retry-after"] = "7"
    assert await post(http, receiver.url) == Answer(State.PENDING, "HTTP 503", 7.0)


async def test_a_receiver_that_is_silent_is_left_at_the_deadline(
    receiver: Any, http: httpx.AsyncClient
) -> None:
    receiver.gate.clear()
    answer = await post(http, receiver.url, deadline_s=0.2)
    assert answer == Answer(State.PENDING, "no answer within 0.2 s")


async def test_a_receiver_that_is_away_is_tried_again(
    http: httpx.AsyncClient, free_port: Callable[[], int]
) -> None:
    answer = await post(http, f"http://127.0.0.1:{free_port()}/")
    assert answer.state is State.PENDING


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc/passwd", "http://", "http://[::1", "x"])
async def test_what_is_no_web_address_is_given_up(url: str, http: httpx.AsyncClient) -> None:
    assert (await post(http, url)).state is State.GAVE_UP


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1"])
async def test_what_is_not_public_is_given_up_by_default(
    host: str, receiver: Any, http: httpx.AsyncClient
) -> None:
    """No setting, no inside address: nothing is sent, and the record says who could allow it."""
    answer = await post(http, receiver.url.replace("127.0.0.1", host), egress_allow="")
    assert answer.state is State.GAVE_UP
    assert "FROND_EGRESS_ALLOW" in answer.told
    assert receiver.posts.empty()


async def test_a_redirect_to_an_inside_address_leads_nowhere(
    receiver: Any, http: httpx.AsyncClient
) -> None:
    """Redirects are not followed at all, so there is no second address to check."""
    receiver.script[:] = [307]
    receiver.headers["location"] = "http://169.254.169.254/latest/meta-data/"
    assert (await post(http, receiver.url)) == Answer(State.PENDING, "HTTP 307")


async def test_a_name_that_cannot_be_one_is_given_up(http: httpx.AsyncClient) -> None:
    url = f"http://{'a' * 70}.example/"
    assert (await post(http, url)).state is State.GAVE_UP


async def test_a_name_that_cannot_be_resolved_is_tried_again(http: httpx.AsyncClient) -> None:
    answer = await post(http, "http://none.invalid/")
    assert answer.state is State.PENDING


async def test_a_name_is_resolved_once_an_attempt(receiver: Any, http: httpx.AsyncClient) -> None:
    """DNS rebinding: what the name would mean to the next question is never asked. The look-up
    counts as its tenant's."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    asked: list[tuple[str, str | None]] = []

    async def resolve(host: str, port: int, tenant: str | None) -> list[str]:
        asked.append((host, tenant))
        return answers.pop(0)

    sender = WebhookSender(settings(), http)
    sender.egress = Egress("127.0.0.0/8", resolve)
    to = delivery(webhook_url=f"http://hooks.example:{receiver.port}/hook", tenant="acme")
    assert (await sender(to, datetime.now(UTC))).state is State.DELIVERED
    assert receiver.next().headers["host"] == f"hooks.example:{receiver.port}"
    assert asked == [("hooks.example", "acme")]
    # the next attempt asks again, and is refused now
    assert (await sender(to, datetime.now(UTC))).state is State.GAVE_UP
    assert receiver.posts.empty()


async def test_an_address_that_does_not_answer_leaves_the_next_one(
    receiver: Any, http: httpx.AsyncClient
) -> None:
    """As a browser does: a name's second address is tried when nobody listens at the first."""

    async def resolve(host: str, port: int, tenant: str | None) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    sender = WebhookSender(settings(), http)
    sender.egress = Egress("127.0.0.0/8", resolve)
    to = delivery(webhook_url=f"http://hooks.example:{receiver.port}/hook")
    assert (await sender(to, datetime.now(UTC))).state is State.DELIVERED


@pytest.fixture
def swallowing() -> Iterator[int]:
    """A port of 127.0.0.2 that takes no connection and refuses none: what waits to be accepted is
    all that it holds, and packets are dropped."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_an_address_that_swallows_packets_leaves_the_next_one(
    swallowing: int, http: httpx.AsyncClient
) -> None:
    """Neither refused nor made: a connection takes its share of the deadline and no more."""
    heard = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.set()
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async def resolve(host: str, port: int, tenant: str | None) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    sender = WebhookSender(settings(deadline_s=6), http)
    sender.egress = Egress("127.0.0.0/8", resolve)
    to = delivery(webhook_url=f"http://hooks.example:{swallowing}/hook")
    async with await asyncio.start_server(answer, "127.0.0.1", swallowing):
        assert (await sender(to, datetime.now(UTC))).state is State.DELIVERED
    assert heard.is_set()


async def test_an_address_that_swallows_packets_is_tried_again(
    swallowing: int, http: httpx.AsyncClient
) -> None:
    answer = await post(http, f"http://127.0.0.2:{swallowing}/hook", deadline_s=0.4)
    assert answer == Answer(State.PENDING, "no connection could be made in time")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of hooks.example that no public authority has made, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of one's own")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("authority") / "own.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    return path


async def over_tls(certified: Path) -> Answer:
    """What becomes of a webhook to https://hooks.example, at a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async def resolve(host: str, port: int, tenant: str | None) -> list[str]:
        return ["127.0.0.1"]

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server,
        webhook_client(settings()) as http,
    ):
        sender = WebhookSender(settings(), http)
        sender.egress = Egress("127.0.0.0/8", resolve)
        port = server.sockets[0].getsockname()[1]
        to = delivery(webhook_url=f"https://hooks.example:{port}/hook")
        return await sender(to, datetime.now(UTC))


async def test_a_receiver_may_have_an_authority_of_ones_own(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE says whom to trust, as it does for models' servers; nobody else is."""
    stranger = await over_tls(authority)
    assert stranger.state is State.PENDING and "CERTIFICATE_VERIFY_FAILED" in stranger.told
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert (await over_tls(authority)).state is State.DELIVERED


def test_an_authority_of_ones_own_takes_no_public_ones_place(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tenants' receivers in the world are told as before."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    public = set(httpx.create_ssl_context(trust_env=False).get_ca_certs(binary_form=True))
    assert public and public <= set(trusted().get_ca_certs(binary_form=True))


async def test_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    """By number, with the name in Host and in TLS: a second look-up could tell something else."""
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    # a number that no machine's resolver leaves as it is, so that no network is needed
    target = "https://0x5db8d70e:8443/hook?x=1"
    async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
        answer = await post(http, target, egress_allow="")
    assert answer.state is State.DELIVERED
    assert str(seen[0].url) == "https://93.184.215.14:8443/hook?x=1"
    assert seen[0].headers["host"] == "0x5db8d70e:8443"
    assert seen[0].extensions["sni_hostname"] == "0x5db8d70e"


async def test_the_name_that_is_looked_up_stands_in_host_and_tls() -> None:
    """Of those in other scripts, too, for which there are two standards."""
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async def resolve(host: str, port: int, tenant: str | None) -> list[str]:
        assert host == "xn--strae-oqa.example"
        return ["93.184.215.14"]

    async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
        sender = WebhookSender(settings(), http)
        sender.egress = Egress(resolve=resolve)
        to = delivery(webhook_url="https://Straße.example/hook")
        assert (await sender(to, datetime.now(UTC))).state is State.DELIVERED
    assert seen[0].headers["host"] == "xn--strae-oqa.example"
    assert seen[0].extensions["sni_hostname"] == "xn--strae-oqa.example"


def test_a_bad_secret_is_told_at_the_start() -> None:
    """Also a short one that is valid base64, and never with its value."""
    for bad in ("whsec_", "oops", f"{SECRET} oops"):
        with pytest.raises(ValidationError, match="24 bytes or more") as told:
            NotifierSettings(webhook_secret=SecretStr(bad))
        assert "oops" not in str(told.value)


def test_kept_names_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """WEBHOOK_MAX_RETRIES and WEBHOOK_RETRY_DELAY work without the FROND_ prefix."""
    monkeypatch.setenv("WEBHOOK_MAX_RETRIES", "4")
    monkeypatch.setenv("WEBHOOK_RETRY_DELAY", "0.5")
    made = NotifierSettings()
    assert (made.webhook_max_retries, made.webhook_retry_delay) == (4, 0.5)


async def email(mailbox: Any, **more: Any) -> Answer:
    sender = MailSender(settings(smtp_url=SecretStr(mailbox.url), **more))
    return await sender(delivery(email="ana@example.org"), datetime.now(UTC))


async def test_an_email_arrives(mailbox: Any) -> None:
    """Mail goes to the operator's own server, wherever that is: the guard is for users' words."""
    answer = await email(
        mailbox, mail_from="frond@example.org", public_url="http://f.example", egress_allow=""
    )
    assert answer.state is State.DELIVERED, answer
    mail = await asyncio.to_thread(mailbox.mails.get, timeout=10)
    assert (mail["from"], mail["to"]) == ("frond@example.org", "ana@example.org")
    assert "3 palme à huile" in mail.get_content()
    assert "http://f.example/status/survey-7" in mail.get_content()


async def test_greylisting_is_tried_again_and_an_unknown_mailbox_is_not(mailbox: Any) -> None:
    """RFC 5321: 4yz passes, 5yz stays."""
    mailbox.script[:] = ["450 come back later", "550 no such mailbox"]
    assert (await email(mailbox)).state is State.PENDING
    assert (await email(mailbox)).state is State.GAVE_UP


@asynccontextmanager
async def relay(command: str, reply: str) -> AsyncIterator[SecretStr]:
    """A mail server that answers one command so, and takes all else; CONNECT is its greeting, TEXT
    the end of the message."""
    says = {
        "CONNECT": "220 relay", "EHLO": "502 what", "DATA": "354 go on", "TEXT": "250 queued", "QUIT": "221 bye",
        command: reply,
    }  # fmt: skip

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = "CONNECT"
        while heard:
            writer.write(says.get(heard, "250 ok").encode() + b"\r\n")
            in_text = heard == "DATA" and says[heard].startswith("354")
            line = await reader.readuntil(b"\r\n.\r\n") if in_text else await reader.readline()
            heard = "TEXT" if in_text else line[:4].decode().upper()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield SecretStr(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("CONNECT", "554 no service for you"),
        ("HELO", "550 5.1.1 no such name"),
        ("MAIL", "504 5.5.2 <frond@localhost>: Sender address rejected: need fully-qualified address"),
        ("MAIL", "550 may not send as this"),
        ("RCPT", "504 5.5.2 <frond@localhost>: Sender address rejected: need fully-qualified address"),
        ("RCPT", "550 5.1.8 <frond@f.invalid>: Sender address rejected: Domain not found"),
        ("RCPT", "553 5.7.1 <frond@f.example>: Sender address rejected: not owned by user frond"),
        ("RCPT", "554 5.7.1 <ana@example.org>: Relay access denied"),
        ("RCPT", "530 authentication is required"),
        ("RCPT", "450 4.1.1 not yet"),
        ("RCPT", "550 relay not permitted"),
        ("RCPT", "550 Sender verify failed"),
        ("RCPT", "550-Verification failed for <f@f.example>\r\n550-It said: 550 5.1.1 unknown\r\n550 Sender verify failed"),
        ("RCPT", "550 Administrative prohibition"),
        ("RCPT", "550 <user@example.org>: Administrative prohibition"),
        ("RCPT", "550 authentication required"),
        ("RCPT", "551 we do not relay"),
        ("RCPT", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
        ("RCPT", "550 5.1.0 <frond@localhost>... Sender rejected"),
        ("RCPT", "550 no service for 5.1.1.7"),
        ("DATA", "550 5.1.0 sender rejected"),
        ("DATA", "550 5.7.60 Client does not have permissions to send as this sender"),
        ("TEXT", "554 5.2.252 SendAsDenied"),
        ("TEXT", "550 looks like spam"),
    ],
)  # fmt: skip
async def test_what_the_mail_server_has_against_the_sender_is_tried_again(
    command: str, reply: str
) -> None:
    """A setting would mend it, whichever command it is said at: Postfix waits for RCPT with it. Given up
    at once, every job's e-mail would be lost, and nobody be paged."""
    async with relay(command, reply) as url:
        sender = MailSender(settings(smtp_url=url))
        answer = await sender(delivery(email="ana@example.org"), datetime.now(UTC))
    assert answer.state is State.PENDING


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("RCPT", "550 no such mailbox"),
        ("RCPT", "550 5.1.1 <ana@example.org>: User unknown"),
        ("RCPT", "556 5.1.10 Recipient address has null MX"),
        ("RCPT", "552 5.2.2 mailbox full"),
        ("RCPT", "550 unknown user"),
        ("RCPT", "550 Unrouteable address"),
        ("RCPT", "551 <relay@send.example>: user not local"),
        ("RCPT", "550 5.1.0 no such user"),
        ("RCPT", "550 sorry, no mailbox here by that name. (#5.1.1)"),
        ("RCPT", "550 5.4.1 Recipient address rejected: Access denied"),
        ("TEXT", "550 5.1.10 RecipientNotFound"),
    ],
)  # fmt: skip
async def test_what_the_mail_server_has_against_the_recipient_stays(
    command: str, reply: str
) -> None:
    """Only the job's address would mend it; some servers look it up after the text."""
    async with relay(command, reply) as url:
        sender = MailSender(settings(smtp_url=url))
        answer = await sender(delivery(email="ana@example.org"), datetime.now(UTC))
    assert answer.state is State.GAVE_UP


async def test_a_mail_server_that_is_away_is_tried_again(free_port: Callable[[], int]) -> None:
    sender = MailSender(settings(smtp_url=SecretStr(f"smtp://127.0.0.1:{free_port()}")))
    answer = await sender(delivery(email="ana@example.org"), datetime.now(UTC))
    assert answer.state is State.PENDING


@pytest.mark.parametrize("reply", ["550 relay-7.corp.example says no", "451 relay-7.corp.example"])
async def test_a_tenant_learns_nothing_of_the_mail_server(
    reply: str, mailbox: Any, capsys: pytest.CaptureFixture[str], free_port: Callable[[], int]
) -> None:
    """Neither where it is nor what it says: a fixed sentence. The log has the rest."""
    mailbox.script[:] = [reply]
    refused = await email(mailbox)
    assert refused.told == "the mail server does not take mail for this address"
    assert "relay-7.corp.example" in capsys.readouterr().out
    away = free_port()
    sender = MailSender(settings(smtp_url=SecretStr(f"smtp://127.0.0.1:{away}")))
    answer = await sender(delivery(email="ana@example.org"), datetime.now(UTC))
    assert answer.told == "the mail server cannot be reached"
    assert str(away) in capsys.readouterr().out
    bad = await sender(delivery(email="a@b.example\nBcc: c@d.example"), datetime.now(UTC))
    assert bad.state is State.GAVE_UP and "is refused" in bad.told


@pytest.mark.parametrize(
    "address",
    ["a@[169.254.169.254]", "a@127.0.0.1", "a@localhost", "a@mailhost", "a@b.c\n", "a\0@b.c",
     "root(@b.example", "=?utf-8?q?root=40intranet?=@b.example"],
)  # fmt: skip
async def test_mail_to_the_inside_is_never_handed_to_the_server(address: str, mailbox: Any) -> None:
    """By the topic such a word comes past REST: it is given up here, and no server is asked."""
    mailbox.script[:] = ["250 not asked"]
    sender = MailSender(settings(smtp_url=SecretStr(mailbox.url)))
    answer = await sender(delivery(email=address), datetime.now(UTC))
    assert answer.state is State.GAVE_UP and "is refused" in answer.told
    assert mailbox.script == ["250 not asked"] and mailbox.mails.empty()


async def test_without_a_mail_server_the_record_says_so() -> None:
    answer = await MailSender(settings())(delivery(email="ana@example.org"), datetime.now(UTC))
    assert answer.state is State.GAVE_UP
    assert "FROND_SMTP_URL" in answer.told
