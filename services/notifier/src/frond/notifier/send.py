"""One attempt over the network, by either road. Nothing is raised: every end is an Answer."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib
import httpx
from standardwebhooks import Webhook

from frond.contracts.deliveries import Delivery, State
from frond.contracts.errors import JobRejected
from frond.contracts.signing import tenant_secrets
from frond.notifier.delivery import Answer, classify
from frond.notifier.settings import NotifierSettings
from frond.notifier.text import mail, webhook_body
from frond.runtime import get_logger

# a reply's second code (RFC 3463), which some give in their text (qmail: "(#5.7.1)"), and those that
# speak of a recipient: its address, its mailbox, the way there. Of 5.1 and 5.2 others speak of senders,
# 5.7 of who may relay; 5.1.0 leaves open whose address it is.
_SECOND: Final = re.compile(r"(?<![\d.])5\.\d{1,3}\.\d{1,3}(?!\.?\d)")
_RECIPIENT: Final = re.compile(r"5\.(?:1\.(?:[1-46]|10)|2\.[1-4]|4\.[14])")
_OPEN: Final = "5.1.0"
# without one: no such mailbox, not here, full, no such name, a domain that takes no mail
_NO_MAILBOX: Final = (550, 551, 552, 553, 556)
# they say as well what Exim and qmail have against the sender, so the words have to tell: those for
# which somebody is missing, and those that no recipient is told with
_OF_RECIPIENT: Final = re.compile(r"mailbox|\buser|recipient|addressee|unknown local|unrout", re.I)
_OF_OTHERS: Final = re.compile(r"relay|send|auth|verif|prohibit|permi|polic", re.I)
_ADDRESS: Final = re.compile(r"<[^<>]*>|[^\s<>]*@[^\s<>:,;]*")
_log = get_logger(__name__)


class Sender(Protocol):
    """A road: tries once, within the deadline."""

    async def __call__(self, delivery: Delivery, now: datetime) -> Answer: ...


def trusted() -> ssl.SSLContext:
    """Whose certificates receivers may have: public authorities', and beside them the machine's own
    or, where they are set, those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def webhook_client(settings: NotifierSettings) -> httpx.AsyncClient:
    """The client of all webhooks: whatever receivers answer, it remembers nothing of them.

    Connections go to addresses by number, and many receivers share one: a cookie would be handed to
    other tenants' receivers, and a large one would have their webhooks refused.
    """
    # a proxy of the environment would see private addresses that it cannot reach
    return httpx.AsyncClient(
        timeout=settings.deadline_s, trust_env=False, verify=trusted(),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )  # fmt: skip


def signed(body: bytes, message_id: str, now: datetime, secrets: str) -> dict[str, str]:
    """The headers of Standard Webhooks; without a secret there is no signature.

    Args:
        secrets: ``whsec_…``, or several separated by blanks: one signature each.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(int(now.timestamp()))}
    signatures = [Webhook(s).sign(message_id, now, body.decode()) for s in secrets.split()]
    if signatures:
        headers["webhook-signature"] = " ".join(signatures)
    return headers


class WebhookSender:
    """POST, signed for the job's tenant; redirects are not followed, answers' bodies not read."""

    def __init__(self, settings: NotifierSettings, http: httpx.AsyncClient) -> None:
        self.settings = settings
        self.egress = settings.egress
        self.http = http

    async def __call__(self, delivery: Delivery, now: datetime) -> Answer:
        body = webhook_body(delivery, self.settings.public_url)
        secrets = tenant_secrets(self.settings.webhook_secret.get_secret_value(), delivery.tenant)
        headers = {
            "content-type": "application/json",
            "user-agent": "frond-notifier/0.1",
            **signed(body, delivery.event_id, now, secrets),
        }
        try:
            async with (
                asyncio.timeout(self.settings.deadline_s),
                self._posted(delivery, body, headers) as response,
            ):
                return classify(response.status_code, response.headers.get("retry-after"), now)
        except JobRejected as e:
            return Answer(State.GAVE_UP, e.detail)
        except TimeoutError:
            return Answer(State.PENDING, f"no answer within {self.settings.deadline_s:g} s")
        except httpx.ConnectTimeout:
            return Answer(State.PENDING, "no connection could be made in time")
        except (httpx.HTTPError, OSError) as e:
            return Answer(State.PENDING, f"{type(e).__name__}: {e}")

    @asynccontextmanager
    async def _posted(
        self, delivery: Delivery, body: bytes, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        addresses = await self.egress.addresses(delivery.target, delivery.tenant)
        url = httpx.URL(delivery.target)
        # the address that was looked at is the one connected to; the name stays in Host and TLS
        headers = {**headers, "host": url.netloc.decode()}
        extensions = {"sni_hostname": url.raw_host.decode()}
        # one that swallows what it gets leaves time for the others, and for an answer
        deadline_s = self.settings.deadline_s
        patience = httpx.Timeout(deadline_s, connect=deadline_s / (len(addresses) + 1))
        async with AsyncExitStack() as stack:
            for left, address in zip(reversed(range(len(addresses))), addresses, strict=True):
                there = url.copy_with(host=address)
                try:
                    response = await stack.enter_async_context(
                        self.http.stream(
                            "POST", there, content=body, headers=headers, extensions=extensions,
                            follow_redirects=False, timeout=patience,
                        )
                    )  # fmt: skip
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if not left:
                        raise
                else:
                    break
            yield response


class MailSender:
    """SMTP, with STARTTLS wherever the server offers it.

    The server is the operator's, wherever it is; what a user says is the recipient, and an address
    that the guard refuses is never handed over. Tenants read the answers. Which server it is and what it says are for the log alone.
    """

    def __init__(self, settings: NotifierSettings) -> None:
        self.settings = settings
        self.egress = settings.egress

    async def __call__(self, delivery: Delivery, now: datetime) -> Answer:
        server = self.settings.smtp_url.get_secret_value()
        if not server:
            return Answer(State.GAVE_UP, "no mail server is set: FROND_SMTP_URL is empty")
        url = urlsplit(server)
        try:
            self.egress.check_mail(delivery.target)
        except JobRejected as e:
            return Answer(State.GAVE_UP, e.detail)
        try:
            message = mail(delivery, self.settings.mail_from, self.settings.public_url, now)
        except ValueError as e:
            return _not_sent(delivery, e, stays=True, told="the address cannot be used")
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                await aiosmtplib.send(
                    message,
                    # what was looked at, not what a header's reader makes of it
                    recipients=[delivery.target],
                    hostname=url.hostname,
                    port=url.port,
                    username=unquote(url.username) if url.username else None,
                    password=unquote(url.password) if url.password else None,
                    use_tls=url.scheme == "smtps",
                    timeout=self.settings.deadline_s,
                )
        except aiosmtplib.SMTPRecipientsRefused as e:
            told = "the mail server does not take mail for this address"
            return _not_sent(delivery, e, stays=all(map(_stays, e.recipients)), told=told)
        except aiosmtplib.SMTPResponseException as e:
            told = "the mail server does not take the message"
            return _not_sent(delivery, e, stays=_stays(e), told=told)
        except TimeoutError:
            return Answer(State.PENDING, f"no answer within {self.settings.deadline_s:g} s")
        except (aiosmtplib.SMTPException, OSError) as e:
            return _not_sent(delivery, e, stays=False, told="the mail server cannot be reached")
        except ValueError as e:
            return _not_sent(delivery, e, stays=True, told="the message cannot be sent")
        return Answer(State.DELIVERED, "accepted by the mail server")


def _not_sent(delivery: Delivery, error: Exception, *, stays: bool, told: str) -> Answer:
    _log.warning(
        "an e-mail was not sent", job_id=delivery.job_id, id=delivery.id,
        error=f"{type(error).__name__}: {error}"[:500],
    )  # fmt: skip
    return Answer(State.GAVE_UP if stays else State.PENDING, told)


def _stays(refused: aiosmtplib.SMTPResponseException) -> bool:
    """Whether no other try would change it, and nothing but the job's address would.

    RFC 5321 §4.2.1: 5yz stays as it is, however often one asks. But who sends, the password, what may
    be relayed is the operator's to mend, and may be mended while retries go on. Servers say that at RCPT
    as well (Postfix keeps what it has against a sender until then), and some say only after the
    text that there is no such mailbox. What may be either's is tried again: that loses nothing.
    """
    at_rcpt = isinstance(refused, aiosmtplib.SMTPRecipientRefused)
    if refused.code < 500 or not (at_rcpt or isinstance(refused, aiosmtplib.SMTPDataError)):
        return False
    # a user's address may have any of these words and codes in it
    said = _ADDRESS.sub("", refused.message).strip()
    second = _SECOND.search(said)
    if second and second[0] != _OPEN and (not second.start() or not _OF_OTHERS.search(said)):
        return _RECIPIENT.fullmatch(second[0]) is not None
    told = _OF_RECIPIENT.search(said) and not _OF_OTHERS.search(said)
    return bool(told) and at_rcpt and refused.code in _NO_MAILBOX
