// What a typed client can express and what it cannot, checked by the compiler alone. `schema.d.ts` is generated from
// schemas/openapi.json by tests/clients/openapi.sh.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: "https://login.example.com", headers: { authorization: "Bearer wwk_…" } });

export async function settings(): Promise<string[]> {
  const { data, error } = await client.PATCH("/v1/apps/{app_id}", {
    params: { path: { app_id: "acme" } },
    body: {
      settings: {
        redirect_uris: ["https://app.example/callback"],
        access_token_ttl: 900,
        registration: "invite_only",
        token_algorithm: "EdDSA",
        branding: { colour: "#0a66c2" },
        links: { password_reset: "https://app.example/reset" },
      },
    },
  });
  if (error) {
    const code: Schemas["ProblemCode"] = error.code;
    throw new Error(`${code}: ${error.detail} (${error.request_id})`);
  }
  // The response is complete, with no optional members.
  const { redirect_uris, registration }: Schemas["AppSettings"] = data.settings;
  const open: boolean = registration === "open";
  return open ? [] : redirect_uris;
}

export async function keys(): Promise<Schemas["Permission"][]> {
  const { data } = await client.POST("/v1/apps/{app_id}/admin/api-keys", {
    params: { path: { app_id: "acme" } },
    body: { name: "backend", permissions: ["users:read", "audit:read"] },
  });
  const jwks = await client.GET("/v1/apps/{app_id}/.well-known/jwks.json", { params: { path: { app_id: "acme" } } });
  const kid: string | undefined = jwks.data?.keys[0]?.kid;
  return kid && data ? data.permissions : [];
}

export async function events(): Promise<number> {
  const { data } = await client.GET("/v1/events", { params: { query: { after: 0, heartbeat: "event" } } });
  // A string would be the stream, which this did not request.
  const last = typeof data === "object" ? data.items.at(-1) : undefined;
  const type: string | undefined = last?.type;
  return type === "SessionStarted" ? (last?.position ?? 0) : 0;
}

export async function login(): Promise<string | undefined> {
  const { data } = await client.POST("/v1/apps/{app_id}/auth/login", {
    params: { path: { app_id: "acme" } },
    body: { email: "ada@example.com", password: "correct horse battery" },
  });
  // It is absent in cookie mode.
  return data?.access_token;
}

// @ts-expect-error a list, not a text
export const text: Schemas["AppSettingsPatch"] = { redirect_uris: "https://app.example/callback" };
// @ts-expect-error there is no such choice
export const choice: Schemas["AppSettingsPatch"] = { registration: "sometimes" };
// @ts-expect-error nor such a permission
export const permission: Schemas["Permission"] = "users:delete";
// @ts-expect-error nor such a code
export const code: Schemas["ProblemCode"] = "no_such_code";
// @ts-expect-error no setting is missing from an answer
export const answer: Schemas["AppSettings"] = { redirect_uris: [] };
