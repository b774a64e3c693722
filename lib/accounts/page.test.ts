// The page of the accounts' document, as a browser gets it.

import { expect, it } from "vitest";
import { openApiDocument, openApiPage, openApiRoutes } from "../base/openapi.ts";
import { ENDPOINTS } from "./endpoints.ts";

const info = { title: "relog <accounts>", version: "1", description: "see `x` & y" };

it("the page is plain HTML that loads nothing and runs nothing", async () => {
  const document = openApiDocument(Object.values(ENDPOINTS), info);
  const routes = openApiRoutes(document);
  const page = await routes.request("/docs");
  const html = await page.text();
  expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
  expect(page.headers.get("content-security-policy")).toMatch(/^default-src 'none'/);
  expect(html).toBe(openApiPage(document));
  expect(html).toContain("relog &#60;accounts&#62;");
  expect(html).not.toMatch(/<script|<link|<img|src=|https?:|javascript:/i);
  for (const { id } of Object.values(ENDPOINTS)) expect(html).toContain(`<h2 id="${id}">`);
  // Every tag that is opened is closed.
  const open: string[] = [];
  for (const [, end, tag] of html.matchAll(/<(\/?)([a-z0-9]+)[^>]*>/g)) {
    if (tag === "meta") continue;
    if (end === "") open.push(tag!);
    else expect(open.pop()).toBe(tag);
  }
  expect(open).toEqual([]);
  expect(await (await routes.request("/openapi.json")).json()).toEqual(JSON.parse(JSON.stringify(document)));
});
