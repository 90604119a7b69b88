// A login with the client that openapi-generator makes as `typescript-fetch`.
import { AuthApi, Configuration, MeApi, ProblemFromJSON, ResponseError, SessionsApi, type Tokens } from "./fetch/index.js";
import { app_id, caughtUp, check, email, password, server } from "./way-in.js";

const anybody = new AuthApi(new Configuration({ basePath: server }));
await anybody.register({ appId: app_id, registerRequest: { email, password, name: "Ada" } });

const login = await anybody.loginRaw({ appId: app_id, loginRequest: { email, password } });
const tokens: Tokens = await login.value();
const accessToken = tokens.accessToken;
check(accessToken !== undefined && tokens.refreshToken !== undefined, "a login has tokens");

const ada = new Configuration({ basePath: server, accessToken });
const me = await new MeApi(ada).getMe({ appId: app_id });
check(me.id === tokens.user.id && me.name === "Ada", "the account is the one that was made");
check(me.createdAt instanceof Date, "a time is one");

const consistencyToken = login.raw.headers.get("Consistency-Token") ?? undefined;
const sessions = await caughtUp(
  () => new SessionsApi(ada).listOwnSessions({ appId: app_id, consistencyToken }).catch(behind),
  (answer) => answer === undefined,
);
check(sessions !== undefined && sessions.items.some((session) => session.current && session.id === tokens.sessionId), "the session of the login is listed");

const refreshed = await anybody.refresh({ appId: app_id, refreshRequest: { refreshToken: tokens.refreshToken } });
check(refreshed.sessionId === tokens.sessionId, "a refresh goes on with the session");

try {
  await anybody.login({ appId: app_id, loginRequest: { email, password: "wrong" } });
  check(false, "a wrong password is refused");
} catch (error) {
  if (!(error instanceof ResponseError)) throw error;
  check(ProblemFromJSON(await error.response.json()).code === "invalid_credentials", "a refusal says which");
}
console.log(`typescript-fetch: ${me.email} is logged in`);

function behind(error: unknown): undefined {
  if (!(error instanceof ResponseError) || error.response.status !== 503) throw error;
}
