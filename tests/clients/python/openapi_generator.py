"""A login with the client that openapi-generator makes as `python`: <address of the server> <local part of an address>."""

import json
import sys

from watchword_client import ApiClient, ApiException, AuthApi, Configuration, MeApi, SessionsApi
from watchword_client.models import LoginRequest, Problem, ProblemCode, RefreshRequest, RegisterRequest

server, name = sys.argv[1:]
app, email, password = "default", f"{name}@example.org", "violet-Kettle-93"

anybody = AuthApi(ApiClient(Configuration(host=server)))
anybody.register(app, RegisterRequest(email=email, password=password, name="Ada"))
login = anybody.login_with_http_info(app, LoginRequest(email=email, password=password))
tokens = login.data
seen = {header.lower(): value for header, value in login.headers.items()}["consistency-token"]

ada = ApiClient(Configuration(host=server, access_token=tokens.access_token))
me = MeApi(ada).get_me(app)
assert me.id == tokens.user.id and me.name == "Ada", me
for tries in range(30):
    try:
        sessions = SessionsApi(ada).list_own_sessions(app, consistency_token=seen)
        break
    except ApiException as behind:
        # A read model that has not come as far as the login.
        if behind.status != 503:
            raise
assert [session.id for session in sessions.items if session.current] == [tokens.session_id], sessions
assert sessions.next_cursor is None and sessions.total == 2, sessions
refreshed = anybody.refresh(app, refresh_request=RefreshRequest(refresh_token=tokens.refresh_token))
assert refreshed.session_id == tokens.session_id, refreshed

try:
    anybody.login(app, LoginRequest(email=email, password="wrong"))
    sys.exit("a wrong password was not refused")
except ApiException as refusal:
    problem = Problem.from_dict(json.loads(refusal.body))
    assert refusal.status == 401 and problem.code == ProblemCode.INVALID_CREDENTIALS, problem

print(f"openapi-generator, python: {me.email} is logged in")
