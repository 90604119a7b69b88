"""A mail server for tests: accepts every mail, and writes it to a file, one per line.

Usage: smtp.py <port> <file> [<certificate and key> wrapped|starttls] [login] [utf8]

What stands before the @ of the recipient decides what happens to a mail: reject… is refused for good, defer… for now, hang…
gets no answer. `login` lets only the user `mailer` with the password `secret of the mailer` send; `utf8` announces SMTPUTF8.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, path):
        self.path = path

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("reject"):
            return f"550 5.1.1 no mailbox {address} here"
        if address.startswith("defer"):
            return f"451 4.7.1 greylisted {address}"
        if address.startswith("hang"):
            await asyncio.sleep(3600)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "senders": len(message["from"].addresses),
            "hello": session.host_name,
            "connection": session.peer[1],
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "headers": {name.lower(): str(value) for name, value in message.items()},
            "text": text.get_content(),
            "html": html.get_content(),
            "defects": [repr(defect) for part in message.walk() for defect in part.defects],
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    right = data.login == b"mailer" and data.password == b"secret of the mailer"
    return AuthResult(success=right, handled=False)


async def main(port, path, *rest):
    rest, context, wrapped = list(rest), None, False
    options = {"hostname": "mail.test"}
    if "utf8" in rest:
        rest.remove("utf8")
        options["enable_SMTPUTF8"] = True
    if "login" in rest:
        rest.remove("login")
        options |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    if rest:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(rest[0])
        wrapped = rest[1] == "wrapped"
        if not wrapped:
            options |= {"tls_context": context, "require_starttls": True}
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Handler(path), **options), "127.0.0.1", int(port), ssl=context if wrapped else None
    )
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
