"""A FastAPI service that admits callers with an access token of a Watchword app.

    ISSUER=https://auth.example.com/v1/apps/acme uvicorn app:app
"""

import os
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

ISSUER = os.environ["ISSUER"]  # <public_url>/v1/apps/<app_id>
APP_ID = ISSUER.rsplit("/", 1)[-1]
# Keys are cached for five minutes, and fetched at once when a token names an unknown one.
KEYS = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json", lifespan=300, cooldown_duration=5, timeout=5)

bearer = HTTPBearer(auto_error=False)


def caller(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> dict[str, Any]:
    """The claims of the caller's token, or 401. Not async: fetching new keys must not delay other requests."""
    if credentials is None:
        raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})
    token = credentials.credentials
    try:
        if jwt.get_unverified_header(token).get("typ", "").lower() != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        return jwt.decode(
            token,
            KEYS.get_signing_key_from_jwt(token).key,
            algorithms=["ES256", "EdDSA", "RS256"],
            issuer=ISSUER,
            audience=APP_ID,
            leeway=30,
            options={"require": ["exp", "iat", "iss", "aud", "sub", "sid"]},
        )
    except jwt.PyJWKClientConnectionError as error:
        raise HTTPException(503, "the keys are not available", {"Retry-After": "5"}) from error
    except jwt.PyJWTError as error:
        raise HTTPException(401, "the token is not valid", {"WWW-Authenticate": 'Bearer error="invalid_token"'}) from error


Caller = Annotated[dict[str, Any], Depends(caller)]
app = FastAPI()


@app.get("/hello")
def hello(claims: Caller) -> dict[str, str]:
    return {"user_id": claims["sub"], "session_id": claims["sid"]}
