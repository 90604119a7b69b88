"""A login with what openapi-python-client makes: <address of the server> <local part of an address>."""

import sys

from watchword import AuthenticatedClient, Client
from watchword.api.auth import login, refresh, register
from watchword.api.me import get_me
from watchword.api.sessions import list_own_sessions
from watchword.models import LoginRequest, Me, Problem, ProblemCode, RefreshRequest, RegisterRequest, SessionPage, Tokens

server, name = sys.argv[1:]
app, email, password = "default", f"{name}@example.org", "violet-Kettle-93"

anybody = Client(base_url=server)
register.sync(app, client=anybody, body=RegisterRequest(email=email, password=password, name="Ada"))
done = login.sync_detailed(app, client=anybody, body=LoginRequest(email=email, password=password))
tokens = done.parsed
assert isinstance(tokens, Tokens), tokens

ada = AuthenticatedClient(base_url=server, token=tokens.access_token)
me = get_me.sync(app, client=ada)
assert isinstance(me, Me) and me.id == tokens.user.id and me.name == "Ada", me
for tries in range(30):
    listed = list_own_sessions.sync_detailed(app, client=ada, consistency_token=done.headers["Consistency-Token"])
    # 503: a read model that has not come as far as the login.
    if listed.status_code != 503:
        break
sessions = listed.parsed
assert isinstance(sessions, SessionPage) and sessions.total == 2, sessions
assert [session.id for session in sessions.items if session.current] == [tokens.session_id], sessions
refreshed = refresh.sync(app, client=anybody, body=RefreshRequest(refresh_token=tokens.refresh_token))
assert isinstance(refreshed, Tokens) and refreshed.session_id == tokens.session_id, refreshed

refusal = login.sync(app, client=anybody, body=LoginRequest(email=email, password="wrong"))
assert isinstance(refusal, Problem) and refusal.code == ProblemCode.INVALID_CREDENTIALS, refusal

print(f"openapi-python-client: {me.email} is logged in")
