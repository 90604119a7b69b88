// A login with the types of openapi-typescript and the client openapi-fetch.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";
import { app_id, caughtUp, check, email, password, server } from "./way-in.js";

const client = createClient<paths>({ baseUrl: server });
const path = { app_id };

const registered = await client.POST("/v1/apps/{app_id}/auth/register", {
  params: { path },
  body: { email, password, name: "Ada" },
});
check(registered.response.status === 201, "an account is made");

const login = await client.POST("/v1/apps/{app_id}/auth/login", { params: { path }, body: { email, password } });
const tokens: components["schemas"]["Tokens"] | undefined = login.data;
check(tokens?.access_token !== undefined && tokens.refresh_token !== undefined, "a login has tokens");

const headers = { authorization: `Bearer ${tokens.access_token}` };
const me = await client.GET("/v1/apps/{app_id}/auth/me", { params: { path }, headers });
const name: string | null | undefined = me.data?.name;
check(me.data?.id === tokens.user.id && name === "Ada", "the account is the one that was made");

const seen = { "Consistency-Token": login.response.headers.get("Consistency-Token") ?? undefined };
const sessions = await caughtUp(
  () => client.GET("/v1/apps/{app_id}/auth/sessions", { params: { path, header: seen }, headers }),
  (answer) => answer.response.status === 503,
);
const newest: components["schemas"]["Session"] | undefined = sessions.data?.items.find((session) => session.current);
check(newest?.id === tokens.session_id, "the session of the login is listed");

const refreshed = await client.POST("/v1/apps/{app_id}/auth/refresh", {
  params: { path },
  body: { refresh_token: tokens.refresh_token },
});
check(refreshed.data?.session_id === tokens.session_id, "a refresh goes on with the session");

const refusal = await client.POST("/v1/apps/{app_id}/auth/login", { params: { path }, body: { email, password: "wrong" } });
const code: components["schemas"]["ProblemCode"] | undefined = refusal.error?.code;
check(code === "invalid_credentials", "a refusal says which");
console.log(`openapi-typescript: ${me.data.email} is logged in`);
