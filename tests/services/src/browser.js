// @ts-check
// Acts like a person, in a headless Chromium.
//
// Usage: node browser.js <folder of playwright-core> <chromium> with-scripts|without-scripts <origin>...
//
// Each line of standard input is a step, such as {"step": "open", "url": "http://127.0.0.1:1/"}; each gets one line of
// output, {"value": …} or {"error": "…"}. Requests may go only to the given origins. It exits when its standard input
// ends.
"use strict";

const { createInterface } = require("node:readline");

const [, , playwright, executablePath, scripts, ...origins] = process.argv;
const { chromium } = /** @type {import("playwright-core")} */ (require(playwright));

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {import("playwright-core").Response} Response */

/** How long a step may take, in milliseconds, and how long all of it. */
const [PATIENCE, LIFE] = [30_000, 300_000];

const SCREENS = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };

/** @type {("light" | "dark")[]} */
const SCHEMES = ["light", "dark"];

const QUIET = ["gpu", "quic", "background-networking", "component-update", "sync"].map((it) => `--disable-${it}`);

/**
 * What a page lacks to be read by everybody. It is run inside the page, and so uses nothing from out here.
 * @returns {string[]}
 */
function barriers() {
  /** @type {string[]} */
  const found = [];
  /** @type {(holds: unknown, barrier: string) => void} */
  const must = (holds, barrier) => void (holds || found.push(barrier));
  /** @type {(colour: string) => number[]} */
  const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  // Contrast of relative luminances, as in WCAG 2.2.
  /** @type {(colour: number[]) => number} */
  const luminance = (colour) => {
    const [r, g, b] = colour.map((it) => (it / 255 <= 0.04045 ? it / 255 / 12.92 : ((it / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  /** @type {(one: number[], other: number[]) => number} */
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  // The browser's default background.
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "Canvas";
  const canvas = channels(getComputedStyle(probe).color);
  probe.remove();
  /** @type {(element: Element | null) => number[]} */
  const ground = (element) => {
    if (!element) return canvas;
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 ? ground(element.parentElement) : colour;
  };

  must(document.documentElement.lang, "no language");
  must(document.title.trim(), "no title");
  must(document.querySelectorAll("h1").length === 1, "not one h1");
  must(document.querySelector("meta[name=viewport]"), "no viewport: phones show it small");
  must(document.documentElement.scrollWidth <= innerWidth, "wider than the screen");
  for (const image of document.images) must(image.alt, "an image without alt text");

  /** @type {NodeListOf<HTMLInputElement | HTMLButtonElement>} */
  const controls = document.querySelectorAll("button:not([hidden]), input:not([type=hidden], [hidden])");
  // What is only for programs, such as the user name in a password form, must not be visible.
  for (const element of document.querySelectorAll("[hidden]")) {
    must(element.getBoundingClientRect().height === 0, "a hidden element is visible");
  }
  for (const control of controls) {
    const name = control instanceof HTMLInputElement ? control.labels?.[0]?.innerText : control.innerText;
    must(name?.trim(), `no name for the ${control.localName}`);
    must(control.getBoundingClientRect().height >= 44, `${name}: too low for a finger`);
    const [outside, style] = [ground(control.parentElement), getComputedStyle(control)];
    const edge = style.borderTopStyle === "none" ? outside : channels(style.borderTopColor);
    const apart = Math.max(contrast(edge, outside), contrast(ground(control), outside));
    must(apart >= 3, `${name}: hard to tell from what is around it (${apart.toFixed(2)})`);
  }

  /** @type {Set<Element>} */
  const written = new Set(document.querySelectorAll("input:not([type=hidden], [hidden])"));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { parentElement, textContent } = texts.currentNode;
    if (textContent?.trim() && parentElement?.checkVisibility()) written.add(parentElement);
  }
  for (const element of written) {
    const ratio = contrast(channels(getComputedStyle(element).color), ground(element));
    must(ratio >= 4.5, `contrast ${ratio.toFixed(2)}: ${element.outerHTML}`);
  }
  return found;
}

/**
 * The link, button or field of a name.
 * @param {Page} page
 * @param {string} name
 */
function control(page, name) {
  const [link, button] = /** @type {const} */ (["link", "button"]).map((it) => page.getByRole(it, { name, exact: true }));
  return link.or(button).or(page.getByLabel(name, { exact: true })).first();
}

/**
 * What can be done, by name.
 * @param {Page} page
 * @param {() => Response | undefined} shown
 * @param {string[]} faults
 * @returns {Record<string, (step: any) => Promise<unknown>>}
 */
function steps(page, shown, faults) {
  return {
    open: async ({ url }) => void (await page.goto(url)),

    /** Shows a mail. */
    show: async ({ html }) => {
      await page.goto("about:blank");
      await page.setContent(html);
    },

    /** Waits for a page with this heading, or this alert. */
    see: async ({ text }) => void (await page.locator("h1, [role=alert]").and(page.getByText(text, { exact: true })).waitFor()),

    click: async ({ name }) => void (await control(page, name).click()),

    /** Goes to a control with the tabulator key, as those do who have no mouse. */
    reach: async ({ name }) => {
      for (let tries = 0; tries < 20; tries++) {
        await page.keyboard.press("Tab");
        const outline = await control(page, name).evaluate(
          (element) => element === document.activeElement && getComputedStyle(element).outlineStyle,
        );
        if (outline === "none") throw new Error(`the focus on ${name} is not visible`);
        if (outline) return;
      }
      throw new Error(`the tabulator key does not lead to ${name}`);
    },

    press: async ({ key }) => void (await page.keyboard.press(key)),

    type: async ({ text }) => void (await page.keyboard.type(text)),

    /** What the person sees, and what came with it. */
    page: async () => ({
      url: page.url(),
      status: shown()?.status(),
      headers: await shown()?.allHeaders(),
      text: await page.locator("body").innerText(),
    }),

    /** Looks at the page on each screen, in light and in dark, and gives what is wrong with it or was on the way to it. */
    inspect: async ({ folder, name }) => {
      for (const [screen, size] of Object.entries(SCREENS)) {
        for (const colorScheme of SCHEMES) {
          await page.setViewportSize(size);
          await page.emulateMedia({ colorScheme });
          const look = `${name}-${screen}-${colorScheme}`;
          await page.screenshot({ path: `${folder}/${look}.png` });
          faults.push(...(await page.evaluate(barriers)).map((barrier) => `${look}: ${barrier}`));
        }
      }
      return faults.splice(0);
    },
  };
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: ["--no-first-run", ...QUIET], timeout: PATIENCE });
  const context = await browser.newContext({ javaScriptEnabled: scripts === "with-scripts", viewport: SCREENS.phone });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();

  /** @type {string[]} */
  const faults = [];
  /** @type {Response | undefined} */
  let shown;
  page.on("response", (response) => {
    if (response.request().isNavigationRequest()) shown = response;
  });
  page.on("pageerror", (error) => faults.push(`script: ${error}`));
  page.on("console", (message) => {
    // A page that refuses something has a 4xx status itself, which is not a fault.
    const refused = message.location().url === page.url() && message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !refused) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { origin } = new URL(request.url());
    if (!origins.includes(origin)) faults.push(`asks ${request.url()}`);
    if (/token|code/.test(request.headers()["referer"] ?? "")) faults.push(`sends ${origin} a referrer with a token`);
  });

  const known = steps(page, () => shown, faults);
  for await (const line of createInterface({ input: process.stdin })) {
    const step = JSON.parse(line);
    const answer = await known[step.step](step).then(
      (value) => ({ value: value ?? null }),
      (error) => ({ error: String(error) }),
    );
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  await browser.close();
}

// It must not outlive the process that started it, whatever that waits for. Chromium ends with this process.
process.stdin.once("end", () => setTimeout(() => process.exit(1), PATIENCE).unref());
setTimeout(() => process.exit(1), LIFE).unref();
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
