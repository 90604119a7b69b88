// What both clients do, whatever they are generated with: somebody registers, logs in, looks at themselves, refreshes.
export const server = argument(2);
export const app_id = "default";
export const email = `${argument(3)}@example.org`;
export const password = "violet-Kettle-93";

function argument(place: number): string {
  const value = process.argv[place];
  if (value === undefined) throw new Error("usage: node <program> <address of the server> <local part of an email address>");
  return value;
}

export function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`not so: ${what}`);
}

/** Asks again while a read model has not come as far as the command: what it answers 503 for. */
export async function caughtUp<T>(ask: () => Promise<T>, isBehind: (answer: T) => boolean): Promise<T> {
  for (let tries = 1; ; tries++) {
    const answer = await ask();
    if (tries === 30 || !isBehind(answer)) return answer;
  }
}

declare const process: { argv: string[] };
