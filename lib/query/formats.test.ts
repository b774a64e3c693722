import { expect, it } from "vitest";
import { chooseFormat } from "./formats.ts";

it.each([
  [undefined, "JSONEachRow"],
  ["", "JSONEachRow"],
  ["*/*", "JSONEachRow"],
  ["application/x-ndjson", "JSONEachRow"],
  ["application/*", "JSONEachRow"],
  ["application/json", "JSON"],
  ["Application/JSON; charset=utf-8", "JSON"],
  ["text/csv", "CSVWithNames"],
  ["text/*", "CSVWithNames"],
  ["text/html, text/csv;q=0.5", "CSVWithNames"],
  ["application/json;q=0.2, text/csv;q=0.9", "CSVWithNames"],
  ["application/x-ndjson;q=0, */*", "JSON"],
  ["application/vnd.apache.parquet", "Parquet"],
  ["application/vnd.apache.arrow.stream", "ArrowStream"],
])("%s -> %s", (accept, engine) => {
  expect(chooseFormat(accept).engine).toBe(engine);
});

it.each(["text/html", "image/png, text/plain", "application/json;q=0", "nonsense", "*/*;q=x"])("%s is not acceptable", (accept) => {
  expect(() => chooseFormat(accept)).toThrow(expect.objectContaining({ code: "not_acceptable" }));
});
