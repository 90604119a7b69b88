// An Express service that admits callers with an access token of a Watchword app.
//
//     ISSUER=https://auth.example.com/v1/apps/acme PORT=3000 node app.mjs

import express from "express";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const issuer = process.env.ISSUER; // <public_url>/v1/apps/<app_id>
const audience = issuer.split("/").at(-1);
// Keys are cached for five minutes, and fetched at once when a token names an unknown one.
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), {
  cacheMaxAge: 300_000,
  cooldownDuration: 5_000,
  timeoutDuration: 5_000,
});

async function requireCaller(request, response, next) {
  const [, token] = /^Bearer +(\S+)$/i.exec(request.get("authorization") ?? "") ?? [];
  if (!token) {
    return response.status(401).set("WWW-Authenticate", "Bearer").json({ detail: "log in first" });
  }
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: "at+jwt",
      algorithms: ["ES256", "EdDSA", "RS256"],
      clockTolerance: 30,
      requiredClaims: ["exp", "iat", "sub", "sid"],
    });
    request.caller = payload;
  } catch (error) {
    // jose's errors about a token have their own codes; a server that does not answer is not the token's fault.
    const isToken = error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && error.code !== "ERR_JOSE_GENERIC";
    if (!isToken) {
      return response.status(503).set("Retry-After", "5").json({ detail: "the keys are not available" });
    }
    return response.status(401).set("WWW-Authenticate", 'Bearer error="invalid_token"').json({ detail: "the token is not valid" });
  }
  next();
}

const app = express();
app.get("/hello", requireCaller, (request, response) => {
  response.json({ user_id: request.caller.sub, session_id: request.caller.sid });
});
app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1");
